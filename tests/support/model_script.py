"""Decides from the user's last message how the scripted model responds: to plain text, or by ``SCRIPT {json}``."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

USE_THE_TOOL = re.compile(r"use the tool(?: (\w+) (\{.*\}))?")
RECALL = re.compile(r"what did (\w+) say")
"""Asks for the outputs of a tool; the model knows those that are in its request."""
TOOL = ("current_time", "{}")
BETWEEN = "\n\n"
"""Separates user messages that the converter has joined into one."""

Tool = tuple[str, str]
"""The name of a tool and its arguments."""


@dataclass
class Script:
    words: int = 0
    """How many words to stream: ``w0 w1 w2 ...``."""
    delay: float = 0.0
    """Seconds between two words."""
    size: int = 0
    """Letters added to each word."""
    then: str = "stop"
    """``stop``, ``cut`` (the connection breaks), ``hang`` (for ever), ``fail`` (an error event), ``filter`` (cut off by
    a content filter), ``length`` (cut off), ``close`` (no final event), ``500`` (an error instead of a stream)."""
    status: int = 0
    """Status of an error that is sent instead of a stream."""
    failures: int = 0
    """How many calls get that error before one succeeds; 0 for all. Calls with one ``note`` are counted together."""
    retry_after: str = ""
    """Value of the error's ``Retry-After`` header, in seconds."""
    code: str = "server_error"
    message: str = "as the script says"
    """Message of an error, instead of a stream or in it."""
    shape: str = "openai"
    """JSON shape of an error instead of a stream: ``openai``, ``list`` (Gemini), ``detail`` (FastAPI), ``text``."""
    reasoning: str = ""
    """Reasoning text that is streamed before the response."""
    refusal: str = ""
    """Refusal that is sent instead of a response."""
    tools: list[Tool] = field(default_factory=list)
    """Tools that are called in parallel after the words; the response to their outputs is ``Done.``"""
    rounds: int = 1
    """How many times the tools are called before ``Done.``"""
    steps: list[list[Tool]] = field(default_factory=list)
    """The tools of each round, if they are not the same in all of them."""
    call_ids: list[str] = field(default_factory=list)
    """Call ids of the tools in each round; by default ``call_0`` and so on, the same in every round."""
    think: str = ""
    """Reasoning that is sent at the beginning of the text, in ``<think>`` tags."""
    note: str = ""
    """Makes a script different from others with the same fields."""

    def word(self, number: int) -> str:
        thought = f"<think>{self.think}</think>\n\n" if self.think and number == 0 else ""
        return f"{thought}w{number}{'x' * self.size} "

    def call_id(self, number: int) -> str:
        return self.call_ids[number] if number < len(self.call_ids) else f"call_{number}"

    @property
    def error(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.code, "code": self.code}


def script_of(messages: list[dict[str, Any]]) -> Script:
    """The script of the last user message; plain text gets a sentence about it, and a tool call if it asks for one."""
    last = user_texts(messages)[-1]
    if not last.startswith("SCRIPT "):
        text, tool = _reply(messages)
        return _Sentence(text, [tool] if tool is not None else [])
    script = Script(**json.loads(last.removeprefix("SCRIPT ")))
    outputs = sum(map(is_tool_output, messages[last_question(messages) :]))
    for tools in script.steps:
        if outputs < len(tools):
            script.tools = tools
            return script
        outputs -= len(tools)
    if script.steps:
        return _Sentence("Done.", [])
    return _Sentence("Done.", []) if script.tools and outputs >= script.rounds * len(script.tools) else script


def json_script_of(body: dict[str, Any]) -> Script | None:
    """The script of a request that wants JSON by a schema: the value of an enum is the one that the user has named,
    and a text is the user's."""
    form = (body.get("text") or {}).get("format") or (body.get("response_format") or {}).get("json_schema") or {}
    if "schema" not in form:
        return None
    text = user_texts(body.get("messages") or body["input"])[-1]
    return _Sentence(json.dumps(_value(form["schema"], text)), [])


def _value(schema: dict[str, Any], text: str) -> Any:
    if "enum" in schema:
        return next((name for name in schema["enum"] if name in text), schema["enum"][0])
    match schema.get("type"):
        case "object":
            return {name: _value(field, text) for name, field in schema["properties"].items()}
        case "string":
            return text
        case _:
            return None


class _Sentence(Script):
    """A script that streams the given text."""

    def __init__(self, text: str, tools: list[Tool]) -> None:
        self._pieces = split_words(text)
        super().__init__(words=len(self._pieces), delay=0.002, tools=tools)

    def word(self, number: int) -> str:
        return self._pieces[number]


def user_texts(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of the user's messages. Messages without a response between them are joined in the request; the context
    notes at its end are left out."""
    texts = []
    for message in messages:
        if message.get("role") == "user":
            content = message["content"]
            joined = content if isinstance(content, str) else BETWEEN.join(part.get("text", "") for part in content)
            texts += [text for text in joined.split(BETWEEN) if not text.startswith("<Context>")]
    return texts or [""]


def last_question(messages: list[dict[str, Any]]) -> int:
    """The index of the last user message."""
    return max((place for place, message in enumerate(messages) if message.get("role") == "user"), default=0)


def is_tool_output(message: dict[str, Any]) -> bool:
    return message.get("role") == "tool" or message.get("type") == "function_call_output"


def outputs_of(messages: list[dict[str, Any]], name: str) -> list[str]:
    """What a tool said, as far as the request has it."""
    ids, found = set(), []
    for message in messages:
        for call in message.get("tool_calls") or ():
            ids |= {call["id"]} if call["function"]["name"] == name else set()
        if message.get("type") == "function_call" and message["name"] == name:
            ids.add(message["call_id"])
        if is_tool_output(message) and message.get("tool_call_id", message.get("call_id")) in ids:
            found.append(str(message.get("content", message.get("output"))))
    return found


def split_words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


def _reply(messages: list[dict[str, Any]]) -> tuple[str, Tool | None]:
    texts = user_texts(messages)
    if (recalled := RECALL.search(texts[-1])) is not None:
        said = outputs_of(messages, recalled[1])
        return f"It said: {' / '.join(said)}" if said else "I do not know.", None
    if is_tool_output(messages[-1]):
        return "The tool has answered.", None
    if (asked := USE_THE_TOOL.search(texts[-1])) is not None:
        return "Let me look.", (asked[1], asked[2]) if asked[1] else TOOL
    return f"You said {texts[-1]!r}, and that is message {len(texts)} of yours.", None
