"""Conversations over a real socket, with the server that `make run` starts."""

from typing import Any

import httpx2
import pytest

from tests.support.processes import ChatProcess, done_items, eventually, http, message, texts, thread_id_of


def test_a_first_message_creates_a_thread_and_streams_an_answer(demo: ChatProcess) -> None:
    events = demo.client("anna").create("Hello")
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["thread.created", "thread.item.done", "stream_options"]
    assert kinds.count("error") == 0
    user, answer = done_items(events)
    assert (user["type"], answer["type"]) == ("user_message", "assistant_message")
    deltas = [event["update"]["delta"] for event in events if event.get("update", {}).get("delta")]
    assert len(deltas) > 20
    assert "".join(deltas) == texts([answer])[0]
    assert "thread.updated" in kinds[: kinds.index("thread.item.updated")]


def test_stream_headers_keep_proxies_from_waiting(demo: ChatProcess) -> None:
    response = demo.client("anna").post("threads.create", input=message("Hello"))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers


def test_the_tool_is_called_on_request(demo: ChatProcess) -> None:
    items = {item["type"]: item for item in done_items(demo.client("anna").create("What time is it?"))}
    assert "UTC" in texts([items["assistant_message"]])[0]
    assert [task["title"] for task in items["workflow"]["workflow"]["tasks"]] == ["Current time"]


def test_second_and_third_turn_see_what_was_said_before(demo: ChatProcess) -> None:
    client = demo.client("ben")
    thread_id = thread_id_of(client.create("one"))
    for number, word in ((2, "two"), (3, "three")):
        _, answer = done_items(client.post_message(thread_id, word))
        assert f"message number {number} of yours" in texts([answer])[0]
    items = client.items(thread_id)
    assert [item["type"] for item in items] == ["user_message", "assistant_message"] * 3
    assert texts(items)[::2] == ["one", "two", "three"]
    assert len({item["id"] for item in items}) == 6


def test_threads_are_listed_newest_first_in_pages(demo: ChatProcess) -> None:
    client = demo.client("carla")
    ids = [thread_id_of(client.create(f"Thread {number}")) for number in range(3)]
    first = client.call("threads.list", limit=2)
    assert [found["id"] for found in first["data"]] == ids[:0:-1]
    assert [found["title"] for found in first["data"]] == ["Thread 2", "Thread 1"]
    second = client.call("threads.list", limit=2, after=first["after"])
    assert [found["id"] for found in second["data"]] == ids[:1]
    assert not second["has_more"]


def test_a_thread_is_fetched_with_its_items(demo: ChatProcess) -> None:
    client = demo.client("dora")
    events = client.create("Hello")
    thread = client.call("threads.get_by_id", thread_id=thread_id_of(events))
    assert thread["title"] == "Hello"
    assert [item["id"] for item in thread["items"]["data"]] == [item["id"] for item in done_items(events)]


def test_a_thread_is_renamed_and_deleted(demo: ChatProcess) -> None:
    client = demo.client("emil")
    thread_id = thread_id_of(client.create("Hello"))
    assert client.call("threads.update", thread_id=thread_id, title="  Mine ")["title"] == "Mine"
    assert client.call("threads.get_by_id", thread_id=thread_id)["title"] == "Mine"
    assert client.call("threads.delete", thread_id=thread_id) == {}
    for operation in ("threads.get_by_id", "threads.delete", "items.list"):
        assert client.post(operation, thread_id=thread_id).status_code == 404
    assert client.call("threads.list")["data"] == []


def test_a_retry_replaces_the_answer_and_what_followed(demo: ChatProcess) -> None:
    client = demo.client("fritz")
    thread_id = thread_id_of(client.create("one"))
    client.post_message(thread_id, "two")
    before = client.items(thread_id)
    events = client.events("threads.retry_after_item", thread_id=thread_id, item_id=before[0]["id"])
    after = client.items(thread_id)
    assert [item["id"] for item in after] == [before[0]["id"], done_items(events)[0]["id"]]
    assert after[1]["id"] not in {item["id"] for item in before}
    assert "message number 1 of yours" in texts(after)[1]


def test_feedback_is_taken_for_items_of_the_thread_only(demo: ChatProcess) -> None:
    client = demo.client("gerda")
    events = client.create("one")
    thread_id, answer = thread_id_of(events), done_items(events)[1]["id"]
    assert client.call("items.feedback", thread_id=thread_id, item_ids=[answer], kind="positive") == {}
    for item_ids, status in (([answer, "msg_nowhere"], 404), ([], 422), (["x"] * 101, 422)):
        assert (
            client.post("items.feedback", thread_id=thread_id, item_ids=item_ids, kind="negative").status_code == status
        )


def test_a_second_user_sees_nothing_of_the_first(demo: ChatProcess) -> None:
    owner, stranger = demo.client("hanna"), demo.client("ivan")
    events = owner.create("secret")
    thread_id, item_id = thread_id_of(events), done_items(events)[0]["id"]
    before = owner.call("threads.get_by_id", thread_id=thread_id)
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("threads.get_by_id", {}),
        ("threads.update", {"title": "mine now"}),
        ("threads.delete", {}),
        ("items.list", {}),
        ("items.feedback", {"item_ids": [item_id], "kind": "positive"}),
        ("threads.add_user_message", {"input": message("let me in")}),
        ("threads.retry_after_item", {"item_id": item_id}),
        ("threads.add_client_tool_output", {"result": {}}),
        ("threads.add_structured_input", {"item_id": item_id, "input": {}}),
        ("threads.custom_action", {"item_id": item_id, "action": {"type": "a"}}),
        ("threads.sync_custom_action", {"item_id": item_id, "action": {"type": "a"}}),
    ]
    for operation, params in attempts:
        foreign = stranger.post(operation, thread_id=thread_id, **params)
        absent = stranger.post(operation, thread_id="thr_nowhere", **params)
        assert foreign.status_code == absent.status_code == 404, operation
        assert foreign.json()["code"] == "not_found"
        assert _without_id(foreign) == _without_id(absent)
    assert stranger.call("threads.list")["data"] == []
    assert owner.call("threads.get_by_id", thread_id=thread_id) == before


@pytest.mark.parametrize(
    ("operation", "params", "status", "code"),
    [
        ("threads.add_client_tool_output", {"result": {}}, 409, "nothing_pending"),
        ("threads.add_structured_input", {"input": {}}, 422, "invalid_request"),
        ("threads.custom_action", {"action": {"type": "buy"}}, 422, "invalid_request"),
        ("threads.sync_custom_action", {"action": {"type": "buy"}}, 422, "invalid_request"),
        ("input.transcribe", {"audio_base64": "AAAA", "mime_type": "audio/webm"}, 501, "not_supported"),
    ],
)
def test_what_has_nobody_to_answer_it_says_so(
    demo: ChatProcess, operation: str, params: dict[str, Any], status: int, code: str
) -> None:
    client = demo.client("jan")
    events = client.create("Hello")
    thread_id, items = thread_id_of(events), client.items(thread_id_of(events))
    if operation.startswith("threads."):
        params = {"thread_id": thread_id} | params
    if operation == "threads.add_structured_input":
        params["item_id"] = items[0]["id"]
    response = client.post(operation, **params)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert client.items(thread_id) == items


def test_a_proxys_request_id_is_kept_and_logged(demo: ChatProcess) -> None:
    response = http.get(f"{demo.base_url}/health/live", headers={"X-Request-ID": "from-the-proxy.1"})
    assert response.headers["x-request-id"] == "from-the-proxy.1"
    eventually(lambda: '"request_id": "from-the-proxy.1"' in demo.log)
    for unfit in ("a b", "x" * 65, "<script>"):
        given = http.get(f"{demo.base_url}/health/live", headers={"X-Request-ID": unfit}).headers["x-request-id"]
        assert given != unfit
        assert len(given) == 32


def test_nothing_that_was_said_is_logged(demo: ChatProcess) -> None:
    client = demo.client("karl")
    thread_id = thread_id_of(client.create("xyzzy-plugh"))
    client.post("threads.update", thread_id=thread_id, title="xyzzy-title")
    assert thread_id in demo.log
    assert "xyzzy" not in demo.log


def test_browsers_of_a_frontend_on_port_3000_may_call(demo: ChatProcess) -> None:
    for origin in ("http://localhost:3000", "http://127.0.0.1:3000"):
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        assert http.options(f"{demo.base_url}/api/chatkit", headers=asked).status_code == 200
        refused = http.post(f"{demo.base_url}/api/chatkit", headers={"Origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)
    foreign = http.post(f"{demo.base_url}/api/chatkit", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


def _without_id(response: httpx2.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert body.pop("request_id") == response.headers["x-request-id"]
    return body
