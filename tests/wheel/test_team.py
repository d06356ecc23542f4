"""A team's ChatKitServer, in a folder with a package called app, through the installed wheel: by one setting it is
persisted, isolated and durable."""

import json
import signal
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from tests.conftest import query
from tests.faults.harness import script, sent_by_model
from tests.support.processes import (
    ChatProcess,
    ModelServer,
    done_items,
    eventually,
    http,
    message,
    parse_events,
    texts,
    thread_id_of,
)
from tests.wheel.conftest import Team, client_of

WORKERS = ("--workers", "2")


def answer(events: list[dict[str, Any]]) -> str:
    return texts([item for item in done_items(events) if item["type"] == "assistant_message"])[-1]


def use(tool: str) -> str:
    return f"use the tool {tool} {{}}"


def test_three_turns_and_a_second_user(team: Team, database_url: URL, model_server: ModelServer) -> None:
    server = team.serve(*WORKERS)
    try:
        client, stranger = client_of(server, "ada"), client_of(server, "bob")
        events = client.create("one")
        thread_id = thread_id_of(events)
        assert [event["stream_options"] for event in events if event["type"] == "stream_options"] == [
            {"allow_cancel": False}
        ]
        for number, words in enumerate(("two", "three"), start=2):
            assert (
                answer(client.post_message(thread_id, words))
                == f"You said '{words}', and that is message {number} of yours."
            )
        roles = [part["role"] for part in model_server.calls()[-1]["body"]["messages"]]
        assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
        assert len({item["id"] for item in client.items(thread_id)}) == 6
        assert stranger.call("threads.list")["data"] == []
        assert stranger.post("threads.get_by_id", thread_id=thread_id).status_code == 404
        assert stranger.post("threads.add_user_message", thread_id=thread_id, input=message("x")).status_code == 404
        turns = query(database_url, "SELECT usage, state FROM chat_turns WHERE user_id = 'ada'")
        assert [turn["state"] for turn in turns] == ["completed"] * 3
        assert json.loads(turns[0]["usage"])["output_tokens"] == 50
        (day,) = http.get(f"{server.base_url}/api/usage", headers=client.headers).json()["days"]
        assert (day["turns"], day["output_tokens"]) == (3, 150)
    finally:
        assert server.stop() == 0


def test_its_tool_its_context_its_header_and_its_environment(team: Team, model_server: ModelServer) -> None:
    (team.directory / ".env").write_text("TEAM_COLOUR=teal\n")
    server = team.serve(*WORKERS)
    try:
        client = client_of(server, "ada")
        body = {"type": "threads.create", "params": {"input": message(use("tenant_name"))}}
        answered = http.post(client.url, json=body, headers=client.headers | {"X-Tenant": "acme"}, timeout=30)
        assert answer(parse_events(answered.text)) == "The tool has answered."
        output = [part for part in model_server.calls()[-1]["body"]["messages"] if part["role"] == "tool"][-1]
        assert output["content"] == "tenant acme, colour teal"
    finally:
        assert server.stop() == 0


def test_an_action_and_feedback(team: Team) -> None:
    server = team.serve(*WORKERS)
    try:
        client = client_of(server, "ada")
        events = client.create(use("show_counter"))
        thread_id = thread_id_of(events)
        (widget,) = [item for item in done_items(events) if item["type"] == "widget"]
        action = {"type": "counter.add", "payload": {"count": 0}}
        after = client.events("threads.custom_action", thread_id=thread_id, item_id=widget["id"], action=action)
        assert answer(after) == "Now it is 1."
        assert "count 1" in json.dumps(client.items(thread_id))
        undeclared = {"type": "counter.reset", "payload": {}}
        refused = client.post("threads.custom_action", thread_id=thread_id, item_id=widget["id"], action=undeclared)
        assert refused.status_code == 422
        answer_id = done_items(after)[-1]["id"]
        client.call("items.feedback", thread_id=thread_id, item_ids=[answer_id], kind="negative")
        assert (team.directory / "feedback.txt").read_text() == f"ada {thread_id} {answer_id} negative\n"
    finally:
        assert server.stop() == 0


def test_a_hang_up_keeps_what_was_read(team: Team, model_server: ModelServer, database_url: URL) -> None:
    server = team.serve(*WORKERS)
    try:
        client, words = client_of(server, "ada"), script(words=3000, delay=0.01)
        stream = client.stream("threads.create", input=message(words))
        stream.wait_for_text(20)
        seen, thread_id = stream.seen, stream.thread_id
        stream.disconnect()
        eventually(lambda: query(database_url, "SELECT 1 FROM chat_turns WHERE state = 'running'") == [])
        kept = texts(client.items(thread_id)[1:])[0]
        assert kept.startswith(seen)
        assert sent_by_model(model_server, words).startswith(kept)
        assert answer(client.post_message(thread_id, "Still there?")).startswith("You said 'Still there?'")
        retried = client.events(
            "threads.retry_after_item", thread_id=thread_id, item_id=client.items(thread_id)[2]["id"]
        )
        assert answer(retried).startswith("You said 'Still there?'")
        assert len(client.items(thread_id)) == 4
    finally:
        assert server.stop() == 0


def test_kill_9_keeps_all_but_the_last_second(team: Team, model_server: ModelServer) -> None:
    server = team.serve(*WORKERS)
    words = script(words=3000, delay=0.01)
    stream = client_of(server, "ada").stream("threads.create", input=message(words))
    stream.wait_for_text(150)
    killed = time.time()
    server.kill()
    stream.wait()
    must_be_kept = sent_by_model(model_server, words, before=killed - 1)
    again = team.serve(*WORKERS)
    try:
        client = client_of(again, "ada")
        eventually(lambda: len(client.items(stream.thread_id)) == 2, what="the partial answer is there")
        kept = texts(client.items(stream.thread_id)[1:])[0]
        assert must_be_kept
        assert kept.startswith(must_be_kept)
        assert answer(client.post_message(stream.thread_id, "Go on")).startswith("You said 'Go on'")
    finally:
        assert again.stop() == 0


def test_a_client_tool_waits_over_a_restart(team: Team) -> None:
    server = team.serve(*WORKERS)
    events = client_of(server, "ada").create(use("read_screen"))
    assert done_items(events)[-1]["type"] == "client_tool_call"
    thread_id = thread_id_of(events)
    assert server.stop() == 0
    again = team.serve(*WORKERS)
    try:
        client = client_of(again, "ada")
        after = client.events("threads.add_client_tool_output", thread_id=thread_id, result={"text": "a map"})
        assert answer(after) == "The tool has answered."
    finally:
        assert again.stop() == 0


def test_a_busy_provider_is_a_sentence(team: Team, database_url: URL) -> None:
    server = team.serve(*WORKERS)
    try:
        client = client_of(server, "ada")
        events = client.create(script(status=429, code="rate_limit_exceeded"))
        (error,) = [event for event in events if event["type"] == "error"]
        assert "busy" in error["message"]
        assert error["allow_retry"] is True
        (turn,) = query(database_url, "SELECT error_code FROM chat_turns")
        assert turn["error_code"] == "model_busy"
    finally:
        assert server.stop() == 0


def test_reload_works_beside_a_package_called_app(team: Team) -> None:
    server = team.serve("--reload")
    try:
        client = client_of(server, "ada")
        assert answer(client.create("Hello")).startswith("You said 'Hello'")
        changed = team.directory / "app" / "server.py"
        changed.write_text(changed.read_text().replace("Now it is", "Then it is"))
        eventually(lambda: "Reloading" in server.log)
        eventually(lambda: _answers(server), 60)
        events = client.create(use("show_counter"))
        (widget,) = [item for item in done_items(events) if item["type"] == "widget"]
        action = {"type": "counter.add", "payload": {"count": 0}}
        target = {"thread_id": thread_id_of(events), "item_id": widget["id"]}
        assert answer(client.events("threads.custom_action", **target, action=action)) == "Then it is 1."
    finally:
        assert server.stop() == 0


def _answers(server: ChatProcess) -> bool:
    try:
        return http.get(f"{server.base_url}/health/ready").status_code == 200
    except Exception:  # noqa: BLE001 - while it starts again
        return False


def test_what_cannot_start_ends_at_once_with_one_message(team: Team) -> None:
    broken = team.directory / "app" / "server.py"
    broken.write_text("import nothing_of_that_name\n" + broken.read_text())
    for arguments in ((), WORKERS, ("--reload",)):
        done = team.run("serve", *arguments)
        assert done.returncode == 2, arguments
        problems = [line for line in done.stderr.splitlines() if "nothing_of_that_name" in line]
        assert len(problems) == 1
        assert f"{broken}:1: ModuleNotFoundError" in problems[0]
        assert "Traceback" not in done.stderr


def test_a_worker_that_cannot_start_ends_the_parent(team: Team) -> None:
    """What only a second process finds: here, a lock that the first one holds."""
    path = Path(team.directory / "app" / "server.py")
    once = (
        "import multiprocessing\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    raise RuntimeError('this cannot be had twice')\n"
    )
    path.write_text(once + path.read_text())
    started = time.monotonic()
    done = team.run("serve", *WORKERS, "--port", "0")
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if "this cannot be had twice" in line]) == 1
    assert time.monotonic() - started < 60


def test_signals_reach_the_workers(team: Team) -> None:
    server = team.serve(*WORKERS)
    assert server.stop(signal.SIGTERM) == 0
    eventually(lambda: not _answers(server))
