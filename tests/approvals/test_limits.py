"""The bounds of a question: the saved run, the number of calls, and what a card shows."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.items import TResponseStreamEvent

from chatkit_postgres.assistant import AgentAssistant, Choices
from chatkit_postgres.assistant.approvals import ApprovalRequest, approval_card, paused_runs
from chatkit_postgres.assistant.approvals.requests import SENTENCES, State
from chatkit_postgres.assistant.demo.model import DemoModel
from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, create, stored


@function_tool(needs_approval=True)
async def pay(text: str) -> str:
    """Pay."""
    return text


class WithText(DemoModel):
    """Calls the tool with a text that its user cannot send."""

    def __init__(self, text: str) -> None:
        super().__init__(0)
        self.text = text

    async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        instructions, conversation, settings, *others = given
        if conversation[-1].get("type") != "function_call_output":
            conversation = [{"role": "user", "content": f"pay {self.text}"}]
        async for event in super().stream_response(instructions, conversation, settings, *others, **more):
            yield event


async def asked(store: DatabaseStore, text: str) -> list[dict[str, Any]]:
    assistant = AgentAssistant(Agent(name="A", tools=[pay], model=WithText(text)))
    assistant.prepare(DemoModels(seconds_per_word=0), Choices())
    return await Chat(store, assistant).events(create("Hello"))


async def test_a_run_that_is_too_large_does_not_wait(store: DatabaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused_runs, "MAX_STATE", 1000)
    events = await asked(store, "x")
    assert [event["message"] for event in events if event["type"] == "error"] == [
        "The assistant needs your approval, but this conversation is too large to wait for it. Please start anew."
    ]
    assert await stored(store, "SELECT 1 FROM chat_approvals") == []
    assert [row["state"] for row in await stored(store, "SELECT state FROM chat_turns")] == ["failed"]


async def test_a_run_that_asks_too_much_does_not_wait(store: DatabaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused_runs, "MAX_CALLS", 0)
    assert [event["type"] for event in await asked(store, "x")].count("error") == 1
    assert await stored(store, "SELECT 1 FROM chat_approvals") == []


@pytest.mark.parametrize("text", ["nul \x00", "\u202e back", "<b>bold</b> **bold**", "\u2028", "x" * 5000, "😀" * 600])
async def test_any_argument_can_be_asked_about(store: DatabaseStore, text: str) -> None:
    events = await asked(store, text)
    assert [event for event in events if event["type"] == "error"] == []
    (row,) = await stored(store, "SELECT item FROM chat_messages WHERE item_type = 'widget'")
    assert len(json.dumps(row["item"], ensure_ascii=False)) < 9000


def test_a_card_shows_some_of_many_arguments() -> None:
    arguments = {f"name {number}" + "y" * 200: "x" * 3000 for number in range(100)}
    shown = json.dumps(approval_card(ApprovalRequest("A", "pay", "Pay", arguments)).model_dump())
    assert "[70 more arguments are left out here]" in shown
    assert len(shown) < 30 * 2500


def test_names_of_arguments_are_words_unless_two_would_be_the_same() -> None:
    arguments = {"order_id": 7, "recipient": "bob", "_recipient": "mallory", "Recipient": "eve", "__": 1}
    shown = json.dumps(approval_card(ApprovalRequest("A", "pay", "Pay", arguments)).model_dump())
    for line in ("Order id: 7", "recipient: bob", "_recipient: mallory", "Recipient: eve", "__: 1"):
        assert f'"{line}"' in shown


@pytest.mark.parametrize("state", SENTENCES)
def test_a_card_has_buttons_while_it_waits_only(state: State) -> None:
    request = ApprovalRequest("A", "pay", "Pay", {"to": "Bob"}, state)
    shown = json.dumps(approval_card(request).model_dump())
    assert ("Approve" in shown.replace("Approved", "")) == (state == "waiting")
    assert SENTENCES[state] in shown
    assert request.text.endswith(SENTENCES[state])
