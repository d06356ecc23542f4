"""The agent of this repository: edit it. ``make run``, compose and the image run it.

Without a key, the agent runs on the built-in demo model, so that its tools can be tried at once.
"""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agents import Agent, function_tool
from chatkit.agents import AgentContext

from chatkit_postgres import RequestContext

INSTRUCTIONS = "You are a helpful assistant in a chat window. Answer in the language of the user, in Markdown, briefly."


@function_tool
def current_time(timezone: str = "UTC") -> str:
    """The current date and time.

    Args:
        timezone: a name of the IANA database, such as Europe/Berlin.

    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        return f"There is no time zone {timezone!r}."
    return datetime.now(zone).strftime("%A, %d %B %Y, %H:%M %Z")


def build() -> Agent[AgentContext[RequestContext]]:
    return Agent(name="Assistant", instructions=INSTRUCTIONS, tools=[current_time])
