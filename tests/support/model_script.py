"""What the model of the tests says: decided by the user's last message, a few words or ``SCRIPT {json}``."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

USE_THE_TOOL = re.compile(r"use the tool(?: (\w+) (\{.*\}))?")
TOOL = ("current_time", "{}")
BETWEEN = "\n\n"
"""Stands between what was joined."""

Tool = tuple[str, str]
"""Its name and its arguments."""


@dataclass
class Script:
    words: int = 0
    """How many words to stream: ``w0 w1 w2 ...``."""
    delay: float = 0.0
    """Seconds between them."""
    size: int = 0
    """Letters in each."""
    then: str = "stop"
    """``stop``, ``cut`` (the connection breaks), ``hang`` (for ever), ``fail`` (an error event), ``filter`` (cut off by
    a content filter), ``length`` (cut off), ``close`` (no end is said), ``500`` (at once)."""
    status: int = 0
    """Of an error answer, at once."""
    failures: int = 0
    """How many calls get it, before one is answered; 0 for all of them. They are told apart by their note."""
    retry_after: str = ""
    """Seconds, in its ``Retry-After``."""
    code: str = "server_error"
    message: str = "as the script says"
    """Of an error, at once or in the stream."""
    shape: str = "openai"
    """Of an error at once: ``openai``, ``list`` (Gemini), ``detail`` (FastAPI's), ``text``."""
    reasoning: str = ""
    """Thought aloud before the answer."""
    refusal: str = ""
    """Said instead of an answer."""
    tools: list[Tool] = field(default_factory=list)
    """Called at once, side by side, after the words; their outputs are answered with ``Done.``"""
    rounds: int = 1
    """How often they are called before that."""
    call_ids: list[str] = field(default_factory=list)
    """Of the tools in each round; without them ``call_0`` and so on, the same in every round."""
    think: str = ""
    """Said at the head of the text, between the marks of a thought."""
    note: str = ""
    """Tells one script from another that says the same."""

    def word(self, number: int) -> str:
        thought = f"<think>{self.think}</think>\n\n" if self.think and number == 0 else ""
        return f"{thought}w{number}{'x' * self.size} "

    def call_id(self, number: int) -> str:
        return self.call_ids[number] if number < len(self.call_ids) else f"call_{number}"

    @property
    def error(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.code, "code": self.code}


def script_of(messages: list[dict[str, Any]]) -> Script:
    """What is asked for; a plain message is answered with a sentence about it, and a tool if it says so."""
    last = said(messages)[-1]
    if not last.startswith("SCRIPT "):
        text, tool = _reply(messages)
        return _Sentence(text, [tool] if tool is not None else [])
    script = Script(**json.loads(last.removeprefix("SCRIPT ")))
    outputs = sum(map(is_tool_output, messages[last_question(messages) :]))
    return _Sentence("Done.", []) if script.tools and outputs >= script.rounds * len(script.tools) else script


class _Sentence(Script):
    """A script that says given words."""

    def __init__(self, text: str, tools: list[Tool]) -> None:
        self._pieces = words(text)
        super().__init__(words=len(self._pieces), delay=0.002, tools=tools)

    def word(self, number: int) -> str:
        return self._pieces[number]


def said(messages: list[dict[str, Any]]) -> list[str]:
    """What the user has said, message by message: those that no answer parts come as one, with notes behind them."""
    texts = []
    for message in messages:
        if message.get("role") == "user":
            content = message["content"]
            joined = content if isinstance(content, str) else BETWEEN.join(part.get("text", "") for part in content)
            texts += [text for text in joined.split(BETWEEN) if not text.startswith("<Context>")]
    return texts or [""]


def last_question(messages: list[dict[str, Any]]) -> int:
    """The place of the user's last message."""
    return max((place for place, message in enumerate(messages) if message.get("role") == "user"), default=0)


def is_tool_output(message: dict[str, Any]) -> bool:
    return message.get("role") == "tool" or message.get("type") == "function_call_output"


def words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


def _reply(messages: list[dict[str, Any]]) -> tuple[str, Tool | None]:
    texts = said(messages)
    if is_tool_output(messages[-1]):
        return "The tool has answered.", None
    if (asked := USE_THE_TOOL.search(texts[-1])) is not None:
        return "Let me look.", (asked[1], asked[2]) if asked[1] else TOOL
    return f"You said {texts[-1]!r}, and that is message {len(texts)} of yours.", None
