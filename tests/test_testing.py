"""The helper for a team's own tests."""

from typing import Any

from agents import Agent, Model, function_tool

from chatkit_postgres.testing import demo_answer


class Costly(Model):
    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a test has called a real model")

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a test has called a real model")


@function_tool
def count_orders(year: int) -> str:
    """Count the orders of a year."""
    return f"12 orders in {year}"


def test_an_agent_answers_by_its_tools_whatever_model_it_has() -> None:
    helper = Agent[Any](name="Helper", tools=[count_orders], model=Costly())
    assert "12 orders in 2026" in demo_answer(helper, "count orders 2026")
