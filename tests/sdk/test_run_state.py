"""What the saved runs of the Agents SDK are relied on for: see docs/decisions/0027."""

from typing import Any

from agents import Agent, RunContextWrapper, RunHooks, Runner, RunState, Tool, function_tool
from agents.items import ToolCallOutputItem

from chatkit_postgres.assistant.demo.model import DemoModel

ran: list[str] = []


@function_tool(needs_approval=True)
def pay() -> str:
    """Pay."""
    ran.append("pay")
    return "paid"


class Hooks(RunHooks[Any]):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> None:
        self.seen.append(f"start {len(ran)}")

    async def on_tool_end(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object) -> None:
        self.seen.append(f"end {len(ran)} {result}")


def paying() -> Agent[Any]:
    ran.clear()
    return Agent(name="A", tools=[pay], model=DemoModel(0))


async def saved(agent: Agent[Any]) -> dict[str, Any]:
    asked = await Runner.run(agent, [{"role": "user", "content": "pay"}], context={"key": "SECRET"})
    assert len(asked.interruptions) == 1
    return asked.to_state().to_json(context_serializer=lambda _: {})


async def test_a_state_has_the_members_that_are_set() -> None:
    document = await saved(paying())
    assert document["original_input"] == [{"role": "user", "content": "pay"}]
    assert "usage" in document["context"]


async def test_input_and_usage_of_a_state_can_be_replaced() -> None:
    agent = paying()
    document = await saved(agent)
    document["original_input"] = [{"role": "user", "content": "pay me"}]
    assert document["context"].pop("usage")["input_tokens"] == 0
    state: RunState[Any] = await RunState.from_json(agent, document, context_override={})
    (asked,) = state.get_interruptions()
    state.approve(asked)
    result = await Runner.run(agent, state)
    assert result.to_input_list()[0] == {"role": "user", "content": "pay me"}
    assert result.context_wrapper.usage.input_tokens == 0


async def test_a_tool_begins_after_the_hook_and_ends_before_it() -> None:
    agent, hooks = paying(), Hooks()
    state: RunState[Any] = await RunState.from_json(agent, await saved(agent))
    state.approve(state.get_interruptions()[0])
    await Runner.run(agent, state, hooks=hooks)
    assert hooks.seen == ["start 0", "end 1 paid"]


async def test_the_message_of_a_rejection_is_the_output_of_the_call() -> None:
    agent, hooks = paying(), Hooks()
    state: RunState[Any] = await RunState.from_json(agent, await saved(agent))
    state.reject(state.get_interruptions()[0], rejection_message="paid before")
    result = await Runner.run(agent, state, hooks=hooks)
    outputs = [item.output for item in result.new_items if isinstance(item, ToolCallOutputItem)]
    assert (outputs, ran, hooks.seen) == (["paid before"], [], [])


async def test_a_hook_that_raises_keeps_the_tool_from_running() -> None:
    class Refusing(RunHooks[Any]):
        async def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> None:
            raise PermissionError

    agent = paying()
    state: RunState[Any] = await RunState.from_json(agent, await saved(agent))
    state.approve(state.get_interruptions()[0])
    try:
        await Runner.run(agent, state, hooks=Refusing())
    except Exception as error:  # noqa: BLE001 - the SDK may wrap it
        refused = error
    assert refused is not None
    assert ran == []
