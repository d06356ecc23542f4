"""Calls of tools are shown while they run, and a run without a word ends with a sentence."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.items import TResponseStreamEvent
from chatkit.agents import AgentContext
from chatkit.types import CustomTask, UserMessageItem, Workflow

from chatkit_postgres.assistant import AgentAssistant, Choices
from chatkit_postgres.assistant.agent import MAX_MODEL_CALLS
from chatkit_postgres.assistant.base import Services
from chatkit_postgres.assistant.demo.model import DemoModel
from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.chat.turns.running_turn import Stop
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, create, stored
from tests.support.processes import done_items

Context = RunContextWrapper[AgentContext[RequestContext]]


@function_tool
async def count_sheep(number: int) -> str:
    """Count."""
    await asyncio.sleep(0.05)
    return f"{number} sheep"


@function_tool
async def own_work(context: Context) -> str:
    """Shows a workflow of its own."""
    await context.context.start_workflow(Workflow(type="custom", tasks=[CustomTask(title="Own work")]))
    await context.context.end_workflow()
    return "worked"


@function_tool
async def slow_tool() -> str:
    """Takes a while."""
    await asyncio.sleep(0.6)
    return "slow"


class Endless(DemoModel):
    """Calls the tool again and again, and says nothing."""

    async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        instructions, _, settings, *others = given
        asked: Any = [{"role": "user", "content": "count sheep 3"}]
        async for event in super().stream_response(instructions, asked, settings, *others, **more):
            yield event


class Pausing(DemoModel):
    """Thinks for long about what a tool has said."""

    async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        if given[1][-1].get("type") == "function_call_output":
            await asyncio.sleep(30)
        async for event in super().stream_response(*given, **more):
            yield event


class Labelled(AgentAssistant):
    """Names calls by their arguments; hides one."""

    def tool_label(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        return None if name == "slow_tool" else f"{name} up to {arguments.get('number')}"

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        await asyncio.sleep(0.15)
        return "A title"


def made(kind: type[AgentAssistant] = AgentAssistant, *, shows: bool = True, **more: Any) -> AgentAssistant:
    agent = Agent[Any](name="A", tools=[count_sheep, own_work, slow_tool], **more)
    assistant = kind(agent)
    assistant.prepare(DemoModels(seconds_per_word=0), Choices(), Services(shows_tool_calls=shows))
    return assistant


def tasks(events: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
    """Title and state of the tasks of each workflow, as it was sent last."""
    workflows = {item["id"]: item for item in done_items(events) if item["type"] == "workflow"}
    return [
        [(task["title"], task["status_indicator"]) for task in item["workflow"]["tasks"]] for item in workflows.values()
    ]


async def test_a_call_is_a_task_with_a_readable_name(store: DatabaseStore) -> None:
    events = await Chat(store, made()).events(create("count sheep 7"))
    assert tasks(events) == [[("Count sheep", "complete")]]
    assert "Count sheep" in [event.get("text") for event in events]
    assert "7 sheep" in json.dumps(done_items(events)[-1])


async def test_a_team_names_and_hides_calls(store: DatabaseStore) -> None:
    assert tasks(await Chat(store, made(Labelled)).events(create("count sheep 7"))) == [
        [("count_sheep up to 7", "complete")]
    ]
    assert tasks(await Chat(store, made(Labelled)).events(create("slow tool"))) == []


async def test_a_setting_hides_all_calls(store: DatabaseStore) -> None:
    events = await Chat(store, made(shows=False)).events(create("count sheep 7"))
    assert tasks(events) == []
    assert "7 sheep" in json.dumps(done_items(events)[-1])


async def test_the_workflow_of_a_tool_does_not_lose_that_of_the_calls(store: DatabaseStore) -> None:
    events = await Chat(store, made()).events(create("own work"))
    assert sorted(title for shown in tasks(events) for title, _ in shown) == ["Own work", "Own work"]
    rows = await stored(store, "SELECT item_type, is_partial, item FROM chat_messages ORDER BY position")
    assert [row["is_partial"] for row in rows] == [False] * 4
    assert "loading" not in json.dumps([row["item"] for row in rows])


async def test_the_title_appears_while_a_tool_runs(store: DatabaseStore) -> None:
    events = await Chat(store, made(Labelled)).events(create("slow tool"))
    kinds = [event["type"] for event in events]
    # The tool shows nothing, so that nothing is sent until it has ended.
    titled = next(place for place, event in enumerate(events) if event["type"] == "thread.updated")
    assert titled < kinds.index("thread.item.added")


@pytest.mark.parametrize("shows", [True, False])
async def test_a_run_that_only_uses_tools_says_so(store: DatabaseStore, shows: bool) -> None:
    assistant = made(shows=shows, tool_use_behavior="stop_on_first_tool")
    events = await Chat(store, assistant).events(create("count sheep 7"))
    assert [event["message"] for event in events if event["type"] == "error"] == [
        "The assistant has used its tools, but has not written an answer."
    ]
    assert [row["state"] for row in await stored(store, "SELECT state FROM chat_turns")] == ["failed"]


async def test_a_tool_that_shows_a_workflow_of_its_own_has_answered(store: DatabaseStore) -> None:
    events = await Chat(store, made(tool_use_behavior="stop_on_first_tool")).events(create("own work"))
    assert [event for event in events if event["type"] == "error"] == []


async def test_a_run_without_end_says_so(store: DatabaseStore) -> None:
    assistant = made(model=Endless(0))
    events = await Chat(store, assistant).events(create("go on"))
    assert [event["message"] for event in events if event["type"] == "error"] == [
        "The assistant reached its limit of steps without an answer."
    ]
    assert sum(map(len, tasks(events))) <= MAX_MODEL_CALLS


async def test_what_a_tool_said_is_saved_before_the_model_goes_on(store: DatabaseStore) -> None:
    chat = Chat(store, made(model=Pausing(0)))
    turn = await chat.start(create("count sheep 7"))
    async with asyncio.timeout(10):
        while not (rows := await stored(store, "SELECT output FROM chat_tool_calls")):  # noqa: ASYNC110 - a row
            await asyncio.sleep(0.05)
    assert rows == [{"output": "7 sheep"}]
    turn.stop(Stop("stopped"))
    await turn.task
