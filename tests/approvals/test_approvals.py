"""A tool that needs an approval: asked by a card, run once when its user approves, never when they refuse."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.store.ids import session_uuid
from tests.approvals.harness import Asked, asking, cards, errors, is_waiting, new_note, paying, replaced
from tests.conftest import execute, query
from tests.faults.harness import SECRET, environment, new_user
from tests.support.effects import effects, prepare
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, texts, thread_id_of

# Both kinds by both APIs are in test_kinds.py.
KINDS = [("build", "responses"), ("ApprovingServer", "chat_completions")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind[0])
def server(
    request: pytest.FixtureRequest,
    shared_database: URL,
    strict_model_server: ModelServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ChatProcess]:
    build, api = request.param
    named = environment(shared_database, strict_model_server) | prepare(shared_database)
    named |= {"CHAT_ASSISTANT": f"tests.support.approving:{build}", "CHAT_MODEL_API": api}
    process = ChatProcess(tmp_path_factory.mktemp("approving"), **named).wait_until_ready()
    yield process
    assert process.stop() == 0


@pytest.fixture
def client(server: ChatProcess) -> ChatClient:
    return ChatClient(server.base_url, mint(SECRET, new_user(), seconds=3600))


def turns(database: URL, thread_id: str) -> list[str]:
    rows = query(
        database, f"SELECT state FROM chat_turns WHERE session_id = '{session_uuid(thread_id)}' ORDER BY started_at"
    )
    return [row["state"] for row in rows]


def paused_runs(database: URL, thread_id: str) -> list[str]:
    """The saved state of each run that waits in a thread."""
    found = query(database, f"SELECT run_state FROM chat_approvals WHERE session_id = '{session_uuid(thread_id)}'")
    return [row["run_state"] for row in found]


def test_an_approved_tool_runs_and_the_model_goes_on(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note))
    (card,) = asked.cards
    assert is_waiting(card)
    shown = json.dumps(card["widget"])
    assert all(word in shown for word in ("Clerk", "Pay", note, "Approve", "Refuse"))
    assert effects(shared_database)[note] == 0
    assert turns(shared_database, asked.thread_id) == ["waiting"]
    events = asked.answer()
    assert errors(events) == []
    assert effects(shared_database)[note] == 1
    assert texts(done_items(events))[-1] == "Done."
    (after,) = replaced(events)
    assert not is_waiting(after)
    assert "Approved" in json.dumps(after)
    assert asked.card() == after
    assert turns(shared_database, asked.thread_id) == ["waiting", "completed"]
    assert paused_runs(shared_database, asked.thread_id) == []


def test_a_refused_tool_never_runs_and_the_model_is_told(
    client: ChatClient, shared_database: URL, strict_model_server: ModelServer
) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note))
    events = asked.answer(approve=False)
    assert errors(events) == []
    assert texts(done_items(events))[-1] == "Done."
    assert effects(shared_database)[note] == 0
    assert "The user has refused this call" in json.dumps(strict_model_server.calls()[-1]["body"])
    assert "Refused" in json.dumps(asked.card())


def test_a_tool_may_ask_only_for_some_arguments(client: ChatClient, shared_database: URL) -> None:
    small, large = new_note(), new_note()
    message = asking(("transfer", {"note": small, "amount": 5}), ("transfer", {"note": large, "amount": 500}))
    asked = Asked.by(client, message)
    assert len(asked.cards) == 1
    assert large in json.dumps(asked.cards)
    assert (effects(shared_database)[small], effects(shared_database)[large]) == (1, 0)
    asked.done()
    assert (effects(shared_database)[small], effects(shared_database)[large]) == (1, 1)


def test_of_three_questions_each_has_its_own_answer(client: ChatClient, shared_database: URL) -> None:
    notes = [new_note() for _ in range(3)]
    asked = Asked.by(client, paying(*notes))
    assert len(asked.cards) == 3
    assert done_items(asked.answer(1, approve=False)) == []
    assert done_items(asked.answer(2)) == []
    assert [effects(shared_database)[note] for note in notes] == [0, 0, 0]
    assert [is_waiting(asked.card(number)) for number in range(3)] == [True, False, False]
    asked.done(0)
    assert [effects(shared_database)[note] for note in notes] == [1, 0, 1]


def test_three_answers_at_once_make_one_run(client: ChatClient, shared_database: URL) -> None:
    notes = [new_note() for _ in range(3)]
    asked = Asked.by(client, paying(*notes))
    streams = [asked.press(number) for number in (0, 1, 2, 0, 1, 2)]
    events = [stream.wait() for stream in streams]
    assert [stream.status for stream in streams] == [200] * 6
    assert sum("Done." in texts(done_items(each)) for each in events) >= 1
    assert [effects(shared_database)[note] for note in notes] == [1, 1, 1]
    assert turns(shared_database, asked.thread_id).count("running") == 0


def test_a_second_press_is_answered_with_what_there_is(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note))
    first = asked.answer()
    # The other button, too.
    for approve in (True, False):
        again = asked.answer(approve=approve)
        assert errors(again) == []
        assert replaced(again) == replaced(first)
        assert done_items(again) == client.items(asked.thread_id)[-len(done_items(again)) :]
        assert texts(done_items(again))[-1] == "Done."
    assert effects(shared_database)[note] == 1
    assert turns(shared_database, asked.thread_id) == ["waiting", "completed"]


def test_two_presses_at_once_run_the_tool_once(client: ChatClient, shared_database: URL) -> None:
    for _ in range(5):
        note = new_note()
        asked = Asked.by(client, paying(note))
        streams = [asked.press(), asked.press(), asked.press(approve=False)]
        for stream in streams:
            stream.wait()
            assert (stream.status, stream.errors) == (200, [])
        card = json.dumps(asked.card())
        assert effects(shared_database)[note] == ("Approved" in card) == ("Refused" not in card)


def test_a_repeated_press_with_its_key_gets_the_same_turn(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note, after=0.5))
    streams = [asked.press(key=note) for _ in range(2)]
    first, second = (stream.wait() for stream in streams)
    assert texts(done_items(first))[-1] == texts(done_items(second))[-1] == "Done."
    assert done_items(asked.press(key=note).wait())[-1] == done_items(first)[-1]
    assert effects(shared_database)[note] == 1


def test_a_new_message_refuses_the_question(
    client: ChatClient, shared_database: URL, strict_model_server: ModelServer
) -> None:
    note, words = new_note(), new_note()
    asked = Asked.by(client, paying(note))
    events = client.post_message(asked.thread_id, words)
    assert errors(events) == []
    assert "Not answered" in json.dumps(replaced(events))
    assert "Not answered" in json.dumps(asked.card())
    assert not is_waiting(asked.card())
    assert "Not answered" in json.dumps(strict_model_server.calls()[-1]["body"])
    again = asked.answer()
    assert "Not answered" in json.dumps(replaced(again))
    assert effects(shared_database)[note] == 0
    assert paused_runs(shared_database, asked.thread_id) == []


def test_a_retry_asks_again(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note))
    question = client.items(asked.thread_id)[0]["id"]
    again = client.stream("threads.retry_after_item", thread_id=asked.thread_id, item_id=question).wait()
    (card,) = cards(done_items(again))
    assert [item["id"] for item in cards(client.items(asked.thread_id))] == [card["id"]]
    gone = client.post(
        "threads.custom_action",
        thread_id=asked.thread_id,
        item_id=asked.cards[0]["id"],
        action={"type": "chatkit_postgres.approval", "payload": {"approve": True}},
    )
    assert gone.status_code == 404
    asked.cards = [card]
    asked.done()
    assert effects(shared_database)[note] == 1


def test_a_deleted_thread_leaves_no_state(client: ChatClient, shared_database: URL) -> None:
    asked = Asked.by(client, paying(new_note()))
    assert len(paused_runs(shared_database, asked.thread_id)) == 1
    client.call("threads.delete", thread_id=asked.thread_id)
    assert paused_runs(shared_database, asked.thread_id) == []
    assert asked.press().wait() == []


def test_a_stranger_cannot_answer(client: ChatClient, server: ChatProcess, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note))
    stranger = ChatClient(server.base_url, mint(SECRET, new_user(), seconds=3600))
    stream = asked.press(client=stranger)
    stream.wait()
    assert stream.status == 404
    assert is_waiting(asked.card())
    asked.answer()
    assert effects(shared_database)[note] == 1


@pytest.mark.parametrize("payload", [None, {}, {"approve": None}, {"approve": "perhaps"}, "yes", [True]])
def test_a_payload_that_is_no_answer_changes_nothing(client: ChatClient, payload: Any) -> None:
    asked = Asked.by(client, paying(new_note()))
    refused = client.post(
        "threads.custom_action",
        thread_id=asked.thread_id,
        item_id=asked.cards[0]["id"],
        action={"type": "chatkit_postgres.approval", "payload": payload},
    )
    assert refused.status_code == 422, refused.text
    assert "params.action.payload" in refused.text
    assert is_waiting(asked.card())


def test_only_a_question_can_be_answered(client: ChatClient) -> None:
    asked = Asked.by(client, paying(new_note()))
    message = client.items(asked.thread_id)[0]["id"]
    for item_id in (message, None, "apr_unknown", "apr_\x00"):
        refused = client.post(
            "threads.custom_action",
            thread_id=asked.thread_id,
            item_id=item_id,
            action={"type": "chatkit_postgres.approval", "payload": {"approve": True}},
        )
        assert refused.status_code in {404, 422}, (item_id, refused.text)
    at_once = client.post(
        "threads.sync_custom_action",
        thread_id=asked.thread_id,
        item_id=asked.cards[0]["id"],
        action={"type": "chatkit_postgres.approval", "payload": {"approve": True}},
    )
    assert at_once.status_code == 422
    assert is_waiting(asked.card())


def test_a_locked_thread_takes_no_answer(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note))
    lock = f"UPDATE chat_sessions SET status = '{{status}}' WHERE session_id = '{session_uuid(asked.thread_id)}'"
    execute(shared_database, lock.format(status='{"type": "locked"}'))
    stream = asked.press()
    stream.wait()
    assert stream.status == 409, stream.answer
    execute(shared_database, lock.format(status='{"type": "active"}'))
    asked.done()
    assert effects(shared_database)[note] == 1


def test_a_tool_that_fails_after_its_approval_has_run(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, asking(("fail", {"note": note})))
    asked.done()
    assert effects(shared_database)[note] == 1


def test_the_model_may_ask_twice_in_one_run(client: ChatClient, shared_database: URL) -> None:
    note = new_note()
    asked = Asked.by(client, paying(note).replace('"words"', '"rounds": 2, "words"'))
    events = asked.answer()
    assert errors(events) == []
    (second,) = cards(done_items(events))
    assert turns(shared_database, asked.thread_id) == ["waiting", "waiting"]
    asked.cards = [second]
    asked.done()
    assert effects(shared_database)[note] == 2
    assert paused_runs(shared_database, asked.thread_id) == []


def test_the_state_holds_no_secret_and_not_the_history(client: ChatClient, shared_database: URL) -> None:
    words = new_note()
    first = client.create("x" * 10_000 + words)
    asked = Asked(client, thread_id_of(first), [])
    client.post_message(asked.thread_id, paying(new_note()))
    (state,) = paused_runs(shared_database, asked.thread_id)
    assert SECRET not in state
    assert client.headers["Authorization"].removeprefix("Bearer ") not in state
