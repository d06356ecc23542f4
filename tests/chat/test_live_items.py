"""What a follower receives leads to the items of the turn, whichever states it happened to see."""

import random
from uuid import uuid4

import pytest
from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    HiddenContextItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    URLSource,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot

from chatkit_postgres.chat.turns.live_items import LiveItems
from chatkit_postgres.chat.turns.message_accumulator import MessageAccumulator
from chatkit_postgres.store.live import LiveItem, LogText
from tests.support.items import NAIVE, assistant_message, user_message


class Page:
    """The items as a client has them that applies the events."""

    def __init__(self) -> None:
        self.items: dict[str, ThreadItem] = {}

    def apply(self, events: list[ThreadStreamEvent]) -> None:
        for event in events:
            match event:
                case ThreadItemAddedEvent(item=item) | ThreadItemDoneEvent(item=item):
                    self.items[item.id] = item.model_copy(deep=True)
                case ThreadItemReplacedEvent(item=item):
                    assert item.id in self.items
                    self.items[item.id] = item.model_copy(deep=True)
                case ThreadItemRemovedEvent(item_id=item_id):
                    self.items.pop(item_id, None)
                case ThreadItemUpdatedEvent(item_id=item_id, update=update):
                    message = self.items[item_id]
                    assert isinstance(message, AssistantMessageItem)
                    accumulator = MessageAccumulator(message)
                    accumulator.apply(update)
                    self.items[item_id] = accumulator.snapshot() or message
                case _:
                    raise AssertionError(event)


def joining_now(live: LiveItems) -> Page:
    page = Page()
    page.apply(live.so_far())
    return page


def citation(number: int) -> Annotation:
    return Annotation(source=URLSource(title=f"Page {number}", url="https://example.test"), index=number)


@pytest.mark.parametrize("seed", range(200))
def test_a_page_ends_with_the_items_of_the_turn(seed: int) -> None:
    dice = random.Random(seed)
    live, page = LiveItems(), Page()
    message_ids = {name: str(uuid4()) for name in ("m", "a", "b", "widget")}
    shown: dict[str, LiveItem] = {"m": LiveItem(message_ids["m"], user_message("t", "m"), is_partial=False)}
    entries: list[LogText] = []
    sequence = 0
    for _ in range(40):
        name = dice.choice(["a", "b"])
        known = shown.get(name)
        match dice.randrange(8):
            case 0 if known is None:
                shown[name] = LiveItem(message_ids[name], assistant_message("t", name, "Once"), is_partial=True)
            case 1 | 2 | 3 if known is not None and known.is_partial and isinstance(known.item, AssistantMessageItem):
                index = dice.randrange(len(known.item.content))
                part = known.item.content[index]
                words, note = dice.choice([" upon", " 𝔊é", " a time"]), None
                start = len(part.text)
                if dice.random() < 0.3:
                    words, note, start = "", citation(len(part.annotations)), len(part.annotations)
                    part.annotations.append(note)
                part.text += words
                sequence += 1
                entry = LogText(sequence, message_ids[name], index, start, words, note and note.model_dump(mode="json"))
                entries.append(entry)
            case 4 if known is not None and known.is_partial and isinstance(known.item, AssistantMessageItem):
                # Saved again as a whole, with another part or another text.
                contents = [*known.item.content, AssistantMessageContent(text="And")]
                contents = contents if dice.random() < 0.5 else [AssistantMessageContent(text="Twice")]
                shown[name] = LiveItem(message_ids[name], known.item.model_copy(update={"content": contents}), True)
                entries = [entry for entry in entries if entry.message_id != message_ids[name]]
            case 5 if known is not None:
                shown[name] = LiveItem(known.message_id, known.item, is_partial=False)
                entries = [entry for entry in entries if entry.message_id != message_ids[name]]
            case 6 if known is not None and dice.random() < 0.3:
                del shown[name]
            case 7:
                widget = DynamicWidgetRoot.model_validate({"type": "Card", "children": [], "x": dice.random()})
                item = WidgetItem(id="widget", thread_id="t", created_at=NAIVE, widget=widget)
                shown["widget"] = LiveItem(message_ids["widget"], item, is_partial=True)
            case _:
                pass
        if dice.random() < 0.3:
            # A poll: the items with their text so far, and then the entries, some of which they have already.
            copies = [LiveItem(i.message_id, i.item.model_copy(deep=True), i.is_partial) for i in shown.values()]
            page.apply(live.updated(copies))
            page.apply(live.appended(entries))
            entries = []
            assert page.items == {item.item.id: item.item for item in shown.values()}
            assert joining_now(live).items == page.items
    page.apply(live.updated([*shown.values()]))
    page.apply(live.finished())
    assert page.items == {item.item.id: item.item for item in shown.values()}


def test_an_entry_of_another_state_of_the_item_is_left_out() -> None:
    live, page, message_id = LiveItems(), Page(), str(uuid4())
    page.apply(live.updated([LiveItem(message_id, assistant_message("t", "a", "Once"), is_partial=True)]))
    for entry in (
        LogText(1, message_id, 0, 9, "too far", None),
        LogText(2, message_id, 3, 0, "no such part", None),
        LogText(3, message_id, 0, 2, "ce", None),
        LogText(4, message_id, 0, 0, "", citation(0).model_dump(mode="json") | {"index": 1}),
        LogText(5, message_id, 0, 5, "", citation(5).model_dump(mode="json")),
        LogText(6, str(uuid4()), 0, 0, "of an item that nobody may see", None),
    ):
        page.apply(live.appended([entry]))
    item = page.items["a"]
    assert isinstance(item, AssistantMessageItem)
    assert (item.content[0].text, len(item.content[0].annotations)) == ("Once", 1)


def test_the_old_answer_disappears_with_the_first_item_of_the_new_one() -> None:
    live = LiveItems()
    live.replaced_ids = ["old"]
    assert live.updated([]) == []
    new = LiveItem(str(uuid4()), assistant_message("t", "new", "The new one"), is_partial=False)
    assert live.updated([new]) == [ThreadItemRemovedEvent(item_id="old"), ThreadItemDoneEvent(item=new.item)]
    assert live.updated([new]) == []
    assert live.so_far() == [ThreadItemRemovedEvent(item_id="old"), ThreadItemDoneEvent(item=new.item)]


def test_hidden_context_is_not_shown() -> None:
    hidden = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content="for the model")
    assert LiveItems().updated([LiveItem(str(uuid4()), hidden, is_partial=False)]) == []
