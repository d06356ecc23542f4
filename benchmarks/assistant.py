"""The agent that both servers run; ``BENCH_TOOLS`` says how many tools it has."""

import os

from agents import Agent, Tool, function_tool


def tools() -> list[Tool]:
    def made(number: int) -> Tool:
        @function_tool(name_override=f"look_up_{number}")
        async def look_up(customer: str, order: int, language: str, detailed: bool) -> str:
            """Look up the state of an order of a customer, in a language, in detail or not."""
            return f"{customer} {order} {language} {detailed}"

        return look_up

    return [made(number) for number in range(int(os.environ.get("BENCH_TOOLS", "0")))]


def build() -> Agent:
    return Agent(name="Sample", instructions="Answer.", tools=tools())
