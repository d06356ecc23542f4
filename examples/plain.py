"""The minimal assistant: an agent. ``CHAT_ASSISTANT=examples.plain:build make run``"""

from agents import Agent


def build() -> Agent:
    return Agent(name="Support", instructions="Answer questions about our product, briefly, in the user's language.")
