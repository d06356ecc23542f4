"""What the limits cost a turn, in statements."""

import pytest

from chatkit_postgres.chat.turns import checkpoints
from chatkit_postgres.chat.turns.admission import AdmissionRules
from chatkit_postgres.errors import BudgetUsedUp, NotFound
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.limits import Allowance
from tests.support.chat import Chat, add_message, create, demo_assistant
from tests.support.sql import Statements

pytestmark = pytest.mark.one_postgres

ORDINARY = [
    "load_thread",
    "append_item",
    "load_newest_items",
    "list_items_newest_first",
    "append_item",
    "finish_turn",
]


@pytest.fixture(autouse=True)
def _without_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "STEP_SECONDS", 60)


@pytest.fixture
def chat(store: DatabaseStore) -> Chat:
    return Chat(store, demo_assistant(), admission=AdmissionRules(turns_per_user=5, tokens_per_turn=100))


async def test_a_turn_costs_one_statement_more(chat: Chat) -> None:
    thread_id = (await chat.events(create("Hello")))[0]["thread"]["id"]
    seen = Statements(chat.store.database)
    await chat.events(add_message(thread_id, "Hello again"))
    assert [name for name in seen.names if name != "hold_turn"] == ORDINARY
    assert seen.names.count("hold_turn") == 1
    assert seen.names.index("hold_turn") < seen.names.index("append_item")


async def test_without_limits_it_costs_none(store: DatabaseStore) -> None:
    chat = Chat(store, demo_assistant())
    thread_id = (await chat.events(create("Hello")))[0]["thread"]["id"]
    seen = Statements(store.database)
    await chat.events(add_message(thread_id, "Hello again"))
    assert seen.names == ORDINARY


async def test_one_that_is_not_opened_gives_its_place_back(chat: Chat) -> None:
    seen = Statements(chat.store.database)
    with pytest.raises(NotFound):
        await chat.start(add_message("thr_nowhere", "?"))
    assert [name for name in seen.names if name.endswith("_turn")] == ["hold_turn", "release_turn"]
    assert await chat.store.limits.allowance({"user_id": "alice"}) == Allowance(0, 0, 0)


async def test_one_that_is_refused_sends_nothing_else(chat: Chat) -> None:
    # As much as one turn holds, of which the demo model has taken something then.
    chat.tokens_per_day = 100
    assert (await chat.events(create("Hello")))[-1]["type"] != "error"
    seen = Statements(chat.store.database)
    with pytest.raises(BudgetUsedUp):
        await chat.start(create("Hello"))
    assert seen.names == ["hold_turn", "read_allowance"]
