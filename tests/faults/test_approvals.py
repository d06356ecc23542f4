"""Runs that wait for an approval, while their server is killed: an approved tool runs once, a refused one never."""

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.store.ids import session_uuid
from tests.approvals.harness import Asked, asking, is_waiting, new_note, paying
from tests.conftest import query
from tests.faults.harness import Assistants, Replica, Report, new_user, start
from tests.support.effects import effects, prepare
from tests.support.processes import ChatClient, ModelServer, Stream, eventually

QUESTIONS = 5
"""In each run of the test; `make faults` has twenty."""
STALE_SECONDS = 1.5


@pytest.fixture
def own(shared_database: URL) -> dict[str, str]:
    # A second run of the tests is with a team's server.
    build = "build_with_agent_as_tool" if Assistants.named.endswith(":build") else "ApprovingServer"
    settings = {"CHAT_ASSISTANT": f"tests.support.approving:{build}", "CHAT_TURN_STALE_SECONDS": str(STALE_SECONDS)}
    return settings | prepare(shared_database)


@pytest.fixture
def survivor(tmp_path: Path, shared_database: URL, model_server: ModelServer, own: dict[str, str]) -> Iterator[Replica]:
    server = start(tmp_path, shared_database, model_server, **own)
    yield server
    assert server.process.stop() == 0


class Question:
    """A run with up to three calls, and what their user has decided."""

    def __init__(self, client: ChatClient, moment: random.Random) -> None:
        self.notes = [new_note() for _ in range(moment.choice([1, 1, 2, 3]))]
        self.approved = [moment.random() < 0.7 for _ in self.notes]
        message = paying(*self.notes, before=0.15, after=0.15)
        # The tool of an agent that is a tool itself.
        is_nested = moment.random() < 0.3 and Assistants.named.endswith(":build")
        self.asked = Asked.by(client, asking(("ask_clerk", {"input": message})) if is_nested else message)
        self.presses: list[Stream] = []

    def press(self, clients: list[ChatClient], moment: random.Random) -> None:
        """Each button twice, at random replicas."""
        for number, approve in enumerate(self.approved):
            for _ in range(2):
                self.presses.append(self.asked.press(number, approve=approve, client=moment.choice(clients)))

    def press_again(self, client: ChatClient) -> None:
        """Those whose press has not arrived."""
        for number, approve in enumerate(self.approved):
            if is_waiting(self.asked.card(number)):
                self.asked.answer(number, approve=approve, client=client)


def test_an_approved_tool_runs_once_and_a_refused_one_never(
    survivor: Replica,
    directory: Path,
    shared_database: URL,
    model_server: ModelServer,
    own: dict[str, str],
    moment: random.Random,
    record_property: Report,
) -> None:
    user = new_user()
    victim = start(directory, shared_database, model_server, **own)
    clients = [victim.client(user), survivor.client(user)]
    questions = [Question(moment.choice(clients), moment) for _ in range(QUESTIONS)]
    killing = threading.Timer(moment.uniform(0, 1.2), victim.process.stop, args=[signal.SIGKILL])
    killing.start()
    for question in questions:
        question.press(clients, moment)
        time.sleep(moment.uniform(0, 0.2))
    killing.join()
    for question in questions:
        for stream in question.presses:
            stream.wait()
        question.asked.client = survivor.client(user)
        question.press_again(survivor.client(user))
    eventually(lambda: _unsettled(shared_database, user) == [], 30, "every run and turn has ended")
    happened, unknown = effects(shared_database), 0
    for question in questions:
        for number, (note, approve) in enumerate(zip(question.notes, question.approved, strict=True)):
            card = json.dumps(question.asked.card(number)["widget"])
            if not approve:
                assert happened[note] == 0, f"INVARIANT: a refused tool never runs: {card}"
                assert "Refused" in card
            elif "not known" in card:
                unknown += 1
                assert happened[note] <= 1, f"INVARIANT: at most once: {card}"
            else:
                assert happened[note] == 1, f"INVARIANT: exactly once: {card}"
        _check_usable(question.asked)
    record_property("unknown", unknown)


def _unsettled(database: URL, user: str) -> list[dict[str, Any]]:
    return [
        *query(database, f"SELECT turn_id, calls::text FROM chat_approvals WHERE user_id = '{user}'"),
        *query(database, f"SELECT turn_id, state FROM chat_turns WHERE user_id = '{user}' AND state = 'running'"),
    ]


def _check_usable(asked: Asked) -> None:
    """The thread takes a new message."""
    events = asked.client.post_message(asked.thread_id, "Hello")
    assert [event for event in events if event["type"] == "error"] == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_question_survives_a_restart(
    directory: Path, shared_database: URL, model_server: ModelServer, own: dict[str, str], ending: signal.Signals
) -> None:
    user, note = new_user(), new_note()
    server = start(directory, shared_database, model_server, **own)
    asked = Asked.by(server.client(user), paying(note))
    server.process.stop(ending)
    server = start(directory, shared_database, model_server, **own)
    asked.client = server.client(user)
    assert is_waiting(asked.card())
    asked.answer()
    assert effects(shared_database)[note] == 1
    (state,) = query(
        shared_database,
        f"SELECT count(*) FROM chat_turns WHERE session_id = '{session_uuid(asked.thread_id)}' AND state = 'completed'",
    )
    assert state["count"] == 1
    assert server.process.stop() == 0


def test_a_shutdown_in_the_middle_of_a_run_does_not_lose_it(
    survivor: Replica, directory: Path, shared_database: URL, model_server: ModelServer, own: dict[str, str]
) -> None:
    """The call has ended, and the model has not: another replica goes on with what the call has said."""
    user, note = new_user(), new_note()
    server = start(directory, shared_database, model_server, CHAT_DRAIN_SECONDS="0.2", **own)
    asked = Asked.by(server.client(user), paying(note, after=1.5))
    stream = asked.press()
    eventually(lambda: effects(shared_database)[note] == 1)
    assert server.process.stop() == 0
    stream.wait()
    asked.client = survivor.client(user)
    eventually(lambda: _unsettled(shared_database, user) == [], 30, "the run has ended")
    assert effects(shared_database)[note] == 1
    assert "not known" in json.dumps(asked.card()["widget"])
