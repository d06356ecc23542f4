"""Readers of one buffer, each at its own pace."""

import asyncio

import pytest
from chatkit.types import ProgressUpdateEvent, ThreadItemReplacedEvent

from chatkit_postgres.chat.turns.buffer import TEXT_PLACEHOLDER, EventBuffer
from tests.support.chat import delta
from tests.support.items import assistant_message
from tests.support.processes import parse_events


def buffer() -> EventBuffer:
    return EventBuffer(lambda event: b"data: " + event.model_dump_json(exclude_none=True).encode() + b"\n\n")


async def test_a_late_reader_gets_everything_from_the_beginning_with_adjacent_text_merged() -> None:
    events = buffer()
    early = events.read_from_start()
    told: list[str] = []
    for number in range(3):
        events.add(delta("a", f"{number} "))
        told += [event["update"]["delta"] for event in parse_events((await early.read(1) or b"").decode())]
    events.add(ProgressUpdateEvent(text="working"))
    events.add(delta("a", "after"))
    events.add(delta("b", "other"))
    events.end()
    assert told == ["0 ", "1 ", "2 "]
    late = parse_events((await events.read_from_start().read(1) or b"").decode())
    assert [event.get("text") or event["update"]["delta"] for event in late] == ["0 1 2 ", "working", "after", "other"]
    rest = parse_events((await early.read(1) or b"").decode())
    assert [event.get("text") or event["update"]["delta"] for event in rest] == ["working", "after", "other"]
    assert await early.read(1) == b""


async def test_only_the_last_event_that_replaces_an_item_is_kept() -> None:
    """A widget that grows is sent as a whole each time."""
    events = buffer()
    early = events.read_from_start()
    for number in range(1000):
        item = assistant_message("t", "w", f"state {number:05} " * 100)
        events.add(ThreadItemReplacedEvent(item=item), replaces="w")
        events.add(delta("a", "."))
        if number == 500:
            assert b"state 00500" in (await early.read(1) or b"")
    received = await events.read_from_start().read(1) or b""
    assert (received.count(b"thread.item.replaced"), b"state 00999" in received) == (1, True)
    assert len(received) < 300_000
    assert (await early.read(1) or b"").count(b"thread.item.replaced") == 1


async def test_what_the_only_reader_has_read_is_forgotten_unless_it_may_be_read_again() -> None:
    encoded = EventBuffer(lambda event: b"data: " + event.model_dump_json().encode() + b"\n\n", is_repeatable=False)
    reader = encoded.read_from_start()
    received = ""
    for number in range(100):
        encoded.add(ProgressUpdateEvent(text=f"step {number} "))
        encoded.add(delta("a", f"{number} "))
        events = parse_events((await reader.read(1) or b"").decode())
        received += "".join(event.get("text") or event["update"]["delta"] for event in events)
        assert encoded.frames(0, 0)[0] == b""
    assert received == "".join(f"step {number} {number} " for number in range(100))
    encoded.leave(reader)
    encoded.add(delta("a", "nobody reads this"))
    assert encoded.frames(0, 0)[0] == b""


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"\\',
        "\n\r\t\x00\x07\x7f",
        "ä€\U0001f600",
        "\u2028\u2029",
        TEXT_PLACEHOLDER,
        f'"{TEXT_PLACEHOLDER}"',
        "</script>",
    ],
)
async def test_text_is_framed_as_the_sdk_would(text: str) -> None:
    events = buffer()
    events.add(delta("msg_1", text))
    events.end()
    assert await events.read_from_start().read(1) == events._encode(delta("msg_1", text))


async def test_silence_is_told_from_the_end() -> None:
    events = buffer()
    reader = events.read_from_start()
    assert await reader.read(0.01) is None
    waiting = asyncio.create_task(reader.read(5))
    await asyncio.sleep(0)
    events.end()
    assert await waiting == b""
