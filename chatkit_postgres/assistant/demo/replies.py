"""What the demo model says, and which tools it calls: by the words of a message, which it does not understand."""

import json
import re
from collections.abc import Sequence
from typing import Any

from agents import Handoff
from agents.tool import FunctionTool

from chatkit_postgres.assistant.converter import is_question
from chatkit_postgres.assistant.input_shape import NOTE_BEGINS

CLOCK = "current_time"
ASKS_FOR_TIME = re.compile(r"\b(time|date|clock)\b", re.IGNORECASE)
# As examples/handbook.py writes them into the instructions.
PASSAGE = re.compile(r"^\[1\] (?P<heading>.+)\n(?P<body>.+(?:\n.+)*)", re.MULTILINE)
FILE = re.compile(r'^<Attachment name="(?P<read>.+?)" type=|^The user attached a file: "(?P<named>.+?)" \(')
HANDOFF = "transfer_to_"
MAX_PROMPTS = 3

WELCOME = """\
You said: **{said}**

I am the built-in demo model: no key, no network. The rest is real: this answer is streamed, and it was saved to \
PostgreSQL before you saw it as done.{files}

- Reload, or restart the server: the conversation is still here.
- Switch to another user: it is not there.{tools}

```bash
export OPENAI_API_KEY=...   # and a real model answers
```

This is message number {number} of yours."""


def prompts_for(tools: Sequence[Any]) -> list[str]:
    """What to say to have the first tools called."""
    named = [tool for tool in tools if isinstance(tool, FunctionTool)][:MAX_PROMPTS]
    return ["What time is it?" if tool.name == CLOCK else _example(tool).capitalize() for tool in named]


def answer_to(conversation: Sequence[Any], instructions: str | None, tools: Sequence[Any]) -> str:
    last = conversation[-1] if conversation else {}
    if last.get("type") == "function_call_output":
        return _told_by(_name_of(last.get("call_id"), conversation), last.get("output"))
    if (passage := PASSAGE.search(instructions or "")) is not None:
        return f"Under *{passage['heading']}* it says: {' '.join(passage['body'].split())} [1]"
    said = said_in(conversation)
    quoted = said[-1] if len(said[-1]) <= 200 else f"{said[-1][:200]}…"
    offered = [_example(tool) for tool in tools if isinstance(tool, FunctionTool)]
    lines = "".join(f"\n- Say *{words}*, and I call a tool." for words in offered[:5])
    files = "".join(f" A real model would see `{name}`, too." for name in _files_in(last))
    return WELCOME.format(said=quoted.replace("\n", " ") or "nothing", number=len(said), tools=lines, files=files)


def call_for(
    conversation: Sequence[Any], tools: Sequence[Any], handoffs: Sequence[Handoff[Any, Any]] = ()
) -> tuple[str, str] | None:
    """The tool that the last message names word by word, or the agent to hand over to, and its arguments; None after a
    tool has answered."""
    if conversation and conversation[-1].get("type") == "function_call_output":
        return None
    said = said_in(conversation)[-1]
    words = set(re.findall(r"\w+", said.lower()))
    for handoff in handoffs:
        if set(_shown(handoff.tool_name.removeprefix(HANDOFF)).split()) <= words:
            return handoff.tool_name, "{}"
    for tool in tools:
        if not isinstance(tool, FunctionTool):
            continue
        is_named = set(_shown(tool.name).split()) <= words
        if not is_named and not (tool.name == CLOCK and ASKS_FOR_TIME.search(said)):
            continue
        if (arguments := _arguments(tool, said)) is not None:
            return tool.name, json.dumps(arguments)
    return None


def said_in(conversation: Sequence[Any]) -> list[str]:
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


def _files_in(message: Any) -> list[str]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    found = (FILE.match(str(part.get("text", ""))) for part in parts)
    pictures = ["the picture" for part in parts if part.get("type") == "input_image"]
    return [str(file["read"] or file["named"]) for file in found if file is not None] + pictures


def _told_by(tool: str, output: Any) -> str:
    if tool.startswith(HANDOFF):
        return f"I have handed you over: here is **{_shown(tool.removeprefix(HANDOFF)).title()}**, another agent."
    # As an MCP server answers: in parts.
    parts = output if isinstance(output, list) else [{"text": output}]
    said = " ".join(str(part.get("text", part.get("type"))) for part in parts).strip()
    return f"The `{tool}` tool says: **{said.removesuffix('.')}**."


def _shown(tool_name: str) -> str:
    return tool_name.replace("_", " ").lower()


def _example(tool: FunctionTool) -> str:
    """What to say to have it called."""
    properties = tool.params_json_schema.get("properties", {})
    required = (properties.get(name, {}) for name in tool.params_json_schema.get("required", []))
    numbers = [one for one in required if one.get("type") in {"integer", "number"} and "default" not in one]
    return " ".join([_shown(tool.name), *("7" for _ in numbers)])


def _arguments(tool: FunctionTool, said: str) -> dict[str, Any] | None:
    """Defaults where there are any, numbers in the order they were said, everything that was said for a text; None if
    something else is wanted."""
    numbers = iter(re.findall(r"\d{1,15}", said))
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
                given[name] = said
            case "boolean":
                given[name] = False
            case _:
                return None
    return given


def _name_of(call_id: object, conversation: Sequence[Any]) -> str:
    calls = (item for item in conversation if item.get("type") == "function_call" and item.get("call_id") == call_id)
    return next((str(call.get("name")) for call in calls), "unknown")
