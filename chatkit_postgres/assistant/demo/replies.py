"""Chooses the demo model's answers and tool calls, by the words in a message."""

import json
import re
from collections.abc import Sequence
from typing import Any

from agents import Handoff
from agents.tool import FunctionTool

from chatkit_postgres.assistant.approvals.paused_runs import REFUSED
from chatkit_postgres.assistant.model_input.converter import is_question
from chatkit_postgres.assistant.model_input.input_shape import NOTE_BEGINS
from chatkit_postgres.assistant.tools.labels import readable

CLOCK = "current_time"
ASKS_FOR_MEMORY = re.compile(r"\bremember\b", re.IGNORECASE)
ASKS_FOR_TIME = re.compile(r"\b(time|date|clock)\b", re.IGNORECASE)
# The format of passages in the instructions of examples/handbook.py.
PASSAGE = re.compile(r"^\[1\] (?P<heading>.+)\n(?P<body>.+(?:\n.+)*)", re.MULTILINE)
FILE = re.compile(r'^<Attachment name="(?P<read>.+?)" type=|^The user attached a file: "(?P<named>.+?)" \(')
HANDOFF = "transfer_to_"
MAX_PROMPTS = 3

WELCOME = """\
You said: **{quoted}**

I am the built-in demo model: no key, no network. The rest is real: this answer is streamed, and it was saved to \
PostgreSQL before you saw it as done.{files}

- Reload, or restart the server: the conversation is still here.
- Switch to another user: it is not there.{tools}

```bash
export OPENAI_API_KEY=...   # and a real model answers
```

This is message number {number} of yours."""


def prompts_for(tools: Sequence[Any]) -> list[str]:
    """Prompts that make the demo model call the first tools."""
    named = [tool for tool in tools if isinstance(tool, FunctionTool)][:MAX_PROMPTS]
    return ["What time is it?" if tool.name == CLOCK else _example(tool).capitalize() for tool in named]


def answer_to(conversation: Sequence[Any], instructions: str | None, tools: Sequence[Any]) -> str:
    last = conversation[-1] if conversation else {}
    if last.get("type") == "function_call_output":
        return _tool_answer(_name_of(last.get("call_id"), conversation), last.get("output"))
    if (passage := PASSAGE.search(instructions or "")) is not None:
        return f"Under *{passage['heading']}* it says: {' '.join(passage['body'].split())} [1]"
    texts = texts_of_user(conversation)
    if ASKS_FOR_MEMORY.search(texts[-1]):
        return _memory_of(conversation)
    quoted = texts[-1] if len(texts[-1]) <= 200 else f"{texts[-1][:200]}…"
    offered = [_example(tool) for tool in tools if isinstance(tool, FunctionTool)]
    lines = "".join(f"\n- Say *{prompt}*, and I call a tool." for prompt in offered[:5])
    files = f" A real model would see {seen}, too." if (seen := _files_in(last)) else ""
    return WELCOME.format(quoted=quoted.replace("\n", " ") or "nothing", number=len(texts), tools=lines, files=files)


def call_for(
    conversation: Sequence[Any], tools: Sequence[Any], handoffs: Sequence[Handoff[Any, Any]] = ()
) -> tuple[str, str] | None:
    """The tool that the last message names word by word, or the agent to hand over to, and its arguments; None after a
    tool has answered."""
    if conversation and conversation[-1].get("type") == "function_call_output":
        return None
    text = texts_of_user(conversation)[-1]
    words = set(re.findall(r"\w+", text.lower()))
    for handoff in handoffs:
        if set(_words_of(handoff.tool_name.removeprefix(HANDOFF))) <= words:
            return handoff.tool_name, "{}"
    for tool in tools:
        if not isinstance(tool, FunctionTool):
            continue
        is_named = set(_words_of(tool.name)) <= words
        if not is_named and not (tool.name == CLOCK and ASKS_FOR_TIME.search(text)):
            continue
        if (arguments := _arguments(tool, text)) is not None:
            return tool.name, json.dumps(arguments)
    return None


def texts_of_user(conversation: Sequence[Any]) -> list[str]:
    """The texts of the user's messages, oldest first, without files; never empty."""
    texts = []
    for item in conversation:
        if is_question(item):
            content = item.get("content", "")
            parts = content if isinstance(content, list) else [{"text": content}]
            given = (str(part.get("text", "")) for part in parts)
            texts.append(" ".join(text for text in given if text and not FILE.match(text) and not _is_note(text)))
    return texts or [""]


def _is_note(text: str) -> bool:
    return text.startswith(NOTE_BEGINS)


def _files_in(message: Any) -> str:
    """The files and pictures of a message, in words."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    found = (FILE.match(str(part.get("text", ""))) for part in parts)
    names = [f"`{file['read'] or file['named']}`" for file in found if file is not None]
    pictures = sum(part.get("type") == "input_image" for part in parts)
    if pictures:
        names.append("the picture" if pictures == 1 else f"the {pictures} pictures")
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _memory_of(conversation: Sequence[Any]) -> str:
    """What tools have said earlier, as the conversation has it."""
    said = [
        f"- {_tool_answer(_name_of(item.get('call_id'), conversation), item.get('output'))}"
        for item in conversation
        if item.get("type") == "function_call_output"
    ]
    if not said:
        return "No tool has said anything in this conversation yet."
    return "\n".join(["Earlier in this conversation:", "", *said])


def _tool_answer(tool: str, output: Any) -> str:
    if tool.startswith(HANDOFF):
        return f"I have handed you over: here is **{readable(tool.removeprefix(HANDOFF)).title()}**, another agent."
    # MCP servers return a list of parts.
    parts = output if isinstance(output, list) else [{"text": output}]
    result = " ".join(str(part.get("text", part.get("type"))) for part in parts).strip()
    if result == REFUSED:
        return "You have refused it, so nothing was done."
    return f"The tool *{readable(tool)}* says: **{result.removesuffix('.')}**."


def _words_of(tool_name: str) -> list[str]:
    return re.findall(r"\w+", readable(tool_name).lower())


def _example(tool: FunctionTool) -> str:
    """A prompt that makes the demo model call the tool."""
    properties = tool.params_json_schema.get("properties", {})
    required = (properties.get(name, {}) for name in tool.params_json_schema.get("required", []))
    numbers = [one for one in required if one.get("type") in {"integer", "number"} and "default" not in one]
    return " ".join([*_words_of(tool.name), *("7" for _ in numbers)])


def _arguments(tool: FunctionTool, text: str) -> dict[str, Any] | None:
    """Arguments from a message: defaults where there are any, numbers in their order, and the whole text for a string;
    None if another type is required."""
    numbers = iter(re.findall(r"\d{1,15}", text))
    given: dict[str, Any] = {}
    properties = tool.params_json_schema.get("properties", {})
    for name in tool.params_json_schema.get("required", []):
        if "default" in properties.get(name, {}):
            # A strict schema requires these as well.
            given[name] = properties[name]["default"]
            continue
        match properties.get(name, {}).get("type"):
            case "integer" | "number":
                number = next(numbers, None)
                if number is None:
                    return None
                given[name] = int(number)
            case "string":
                given[name] = text
            case "boolean":
                given[name] = False
            case _:
                return None
    return given


def _name_of(call_id: object, conversation: Sequence[Any]) -> str:
    calls = (item for item in conversation if item.get("type") == "function_call" and item.get("call_id") == call_id)
    return next((str(call.get("name")) for call in calls), "unknown")
