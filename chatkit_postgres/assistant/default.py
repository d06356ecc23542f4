"""The default assistant, for an installation that configures none."""

from datetime import UTC, datetime

from agents import Agent, function_tool
from chatkit.agents import AgentContext

from chatkit_postgres.context import RequestContext

INSTRUCTIONS = "You are a helpful assistant in a chat window. Answer in the language of the user, in Markdown, briefly."


@function_tool
def current_time() -> str:
    """The current date and time in UTC."""
    return datetime.now(UTC).strftime("%A, %d %B %Y, %H:%M UTC")


def build() -> Agent[AgentContext[RequestContext]]:
    return Agent(name="Assistant", instructions=INSTRUCTIONS, tools=[current_time])
