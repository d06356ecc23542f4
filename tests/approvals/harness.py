"""Asks a server to use tools that need an approval, and answers its questions."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from chatkit_postgres.assistant.approvals import APPROVAL_ACTION
from tests.support.processes import ChatClient, Event, Stream, done_items, texts, thread_id_of


def new_note() -> str:
    return uuid.uuid4().hex[:12]


def asking(*tools: tuple[str, dict[str, Any]], words: int = 2, **more: Any) -> str:
    """A message with which the model calls these tools."""
    calls = [[name, json.dumps(arguments)] for name, arguments in tools]
    return "SCRIPT " + json.dumps({"words": words, "tools": calls, "note": new_note(), **more})


def paying(*notes: str, **more: Any) -> str:
    return asking(*(("pay", {"note": note, **more}) for note in notes))


def cards(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in items if item["type"] == "widget"]


def is_waiting(card: dict[str, Any]) -> bool:
    return APPROVAL_ACTION in json.dumps(card["widget"])


def errors(events: list[Event]) -> list[Event]:
    return [event for event in events if event["type"] == "error"]


@dataclass
class Asked:
    """A thread in which a run waits."""

    client: ChatClient
    thread_id: str
    cards: list[dict[str, Any]]

    @classmethod
    def by(cls, client: ChatClient, text: str) -> "Asked":
        events = client.create(text)
        assert errors(events) == [], errors(events)
        return cls(client, thread_id_of(events), cards(done_items(events)))

    def press(
        self, number: int = 0, *, approve: bool = True, client: ChatClient | None = None, key: str | None = None
    ) -> Stream:
        return (client or self.client).stream(
            "threads.custom_action",
            key=key,
            thread_id=self.thread_id,
            item_id=self.cards[number]["id"],
            action={"type": APPROVAL_ACTION, "payload": {"approve": approve}},
        )

    def answer(self, number: int = 0, *, approve: bool = True, client: ChatClient | None = None) -> list[Event]:
        """Press a button, and wait for the end of the events."""
        stream = self.press(number, approve=approve, client=client)
        events = stream.wait()
        assert stream.status == 200, stream.answer
        return events

    def done(self, number: int = 0) -> list[Event]:
        """Approve, and expect the run to end."""
        events = self.answer(number)
        assert errors(events) == [], errors(events)
        assert texts(done_items(events))[-1] == "Done."
        return events

    def card(self, number: int = 0) -> dict[str, Any]:
        """As it is stored now."""
        return next(item for item in self.client.items(self.thread_id) if item["id"] == self.cards[number]["id"])


def replaced(events: list[Event]) -> list[dict[str, Any]]:
    return [event["item"] for event in events if event["type"] == "thread.item.replaced"]
