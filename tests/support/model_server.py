"""A scripted, OpenAI-compatible model server, run in a process of its own: ``python -m tests.support.model_server``.

It prints its port on the first line. What it answers is decided by the last message of the user: a few words, or
``SCRIPT {json}`` with

- ``words``: how many words to stream, and ``delay``: seconds between them; the words are ``w0 w1 w2 ...``
- ``size``: letters in each word
- ``then``: ``stop``, ``cut`` (the connection breaks), ``hang`` (for ever), ``fail`` (an error event), ``500`` (at once)

``DRAW {"image": base64, "partials": [base64, ...]}`` draws a picture, by the responses API. Recordings are heard at
``/v1/audio/transcriptions``: one that begins with ``fail`` and a status is answered with it, any other with its length.

What it was asked, and what it sent when, is kept and handed out at ``GET /calls``.
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USE_THE_TOOL = re.compile(r"use the tool(?: (\w+) (\{.*\}))?")
TOOL = ("current_time", "{}")

calls: list[dict[str, Any]] = []


@dataclass
class Script:
    words: int = 0
    delay: float = 0.0
    size: int = 0
    then: str = "stop"
    note: str = ""
    """Tells one script from another that says the same."""

    def word(self, number: int) -> str:
        return f"w{number}{'x' * self.size} "


def script_of(messages: list[dict[str, Any]]) -> Script | None:
    last = said(messages)[-1]
    return Script(**json.loads(last.removeprefix("SCRIPT "))) if last.startswith("SCRIPT ") else None


class Call:
    """The log of one request: when each piece of text left, and whether the client stayed to the end."""

    def __init__(self, api: str, body: dict[str, Any]) -> None:
        self.log: dict[str, Any] = {"api": api, "body": body, "sent": [], "ended": None, "finished": False}
        calls.append(self.log)

    async def pieces(self, script: Script) -> AsyncIterator[str]:
        try:
            for number in range(script.words):
                await asyncio.sleep(script.delay)
                yield script.word(number)
                self.log["sent"].append((time.time(), script.word(number)))
            if script.then == "hang":
                await asyncio.sleep(3600)
            if script.then == "cut":
                raise ConnectionAbortedError("as the script says")
            self.log["finished"] = True
        finally:
            self.log["ended"] = time.time()


def said(messages: list[dict[str, Any]]) -> list[str]:
    texts = []
    for message in messages:
        if message.get("role") == "user":
            content = message["content"]
            texts.append(content if isinstance(content, str) else "".join(part.get("text", "") for part in content))
    return texts


def is_tool_output(message: dict[str, Any]) -> bool:
    return message.get("role") == "tool" or message.get("type") == "function_call_output"


Tool = tuple[str, str]
"""Its name and its arguments."""


def reply(messages: list[dict[str, Any]]) -> tuple[str, Tool | None]:
    """The text of an answer, and the tool that is called after it."""
    texts = said(messages)
    if is_tool_output(messages[-1]):
        return "The tool has answered.", None
    if (asked := USE_THE_TOOL.search(texts[-1])) is not None:
        return "Let me look.", (asked[1], asked[2]) if asked[1] else TOOL
    return f"You said {texts[-1]!r}, and that is message {len(texts)} of yours.", None


def words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


async def chat_completions(request: Request) -> Response:
    body = await request.json()
    call = Call("chat_completions", body)
    script = script_of(body["messages"])
    if script is not None and script.then == "500":
        return JSONResponse({"error": {"message": "as the script says"}}, status_code=500)
    text, tool = ("", None) if script is not None else reply(body["messages"])

    async def stream() -> AsyncIterator[bytes]:
        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return _sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})

        yield chunk({"role": "assistant", "content": ""})
        if script is not None:
            async for piece in call.pieces(script):
                yield chunk({"content": piece})
            if script.then == "fail":
                yield _sse({"error": {"message": "as the script says", "type": "server_error"}})
                return
        for word in words(text):
            await asyncio.sleep(0.002)
            yield chunk({"content": word})
        if tool is not None:
            function = {"name": tool[0], "arguments": tool[1]}
            yield chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
        yield chunk({}, "tool_calls" if tool is not None else "stop")
        yield b"data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


async def responses(request: Request) -> Response:
    body = await request.json()
    Call("responses", body)
    last = said(body["input"])[-1]
    if last.startswith("DRAW "):
        events = _drawing_events(**json.loads(last.removeprefix("DRAW ")))
    else:
        events = _response_events(*reply(body["input"]))

    async def stream() -> AsyncIterator[bytes]:
        for event in events:
            await asyncio.sleep(0.002)
            yield b"event: " + event["type"].encode() + b"\n" + _sse(event)

    return StreamingResponse(stream(), media_type="text/event-stream")


BASE: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": [], "output": []}
BASE |= {"parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress"}
USAGE: dict[str, Any] = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
USAGE |= {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}
USAGE |= {"output_tokens_details": {"reasoning_tokens": 0}}


def _drawing_events(image: str, partials: list[str]) -> Iterator[dict[str, Any]]:
    drawing = {"id": "ig_1", "type": "image_generation_call", "status": "in_progress", "result": None}
    yield {"type": "response.created", "response": BASE}
    yield {"type": "response.output_item.added", "output_index": 0, "item": drawing}
    for number, partial in enumerate(partials):
        shown = {"partial_image_index": number, "partial_image_b64": partial}
        yield {"type": "response.image_generation_call.partial_image", "item_id": "ig_1", "output_index": 0, **shown}
    done = drawing | {"status": "completed", "result": image}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    for event in _response_events("There it is.", None):
        if event["type"] == "response.completed":
            event["response"]["output"].insert(0, done)
        if event["type"] != "response.created":
            yield event


def _response_events(text: str, tool: Tool | None) -> Iterator[dict[str, Any]]:
    # The same id for every message, as a careless server might.
    message: dict[str, Any] = {
        "id": "msg_same",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    at = {"item_id": "msg_same", "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": BASE}
    yield {"type": "response.output_item.added", "output_index": 0, "item": message}
    yield {"type": "response.content_part.added", "part": part, **at}
    for word in words(text):
        yield {"type": "response.output_text.delta", "delta": word, "logprobs": [], **at}
    yield {"type": "response.output_text.done", "text": text, "logprobs": [], **at}
    done = message | {"status": "completed", "content": [part | {"text": text}]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    output: list[dict[str, Any]] = [done]
    if tool is not None:
        call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": tool[0], "arguments": tool[1]}
        call["status"] = "completed"
        yield {"type": "response.output_item.added", "output_index": 1, "item": call}
        yield {"type": "response.output_item.done", "output_index": 1, "item": call}
        output.append(call)
    yield {"type": "response.completed", "response": BASE | {"output": output, "status": "completed", "usage": USAGE}}


async def transcriptions(request: Request) -> Response:
    form = await request.form()
    file = form["file"]
    assert isinstance(file, UploadFile)
    data = await file.read()
    heard = {"model": form["model"], "name": file.filename, "kind": file.content_type, "bytes": len(data)}
    calls.append({"api": "transcriptions", "body": heard})
    if data.startswith(b"fail"):
        return JSONResponse({"error": {"message": "as the recording says"}}, status_code=int(data[4:7]))
    return JSONResponse({"text": f"You said {len(data)} bytes."})


async def list_calls(_: Request) -> Response:
    return JSONResponse(calls)


async def models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "t"}]})


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event | {"sequence_number": 0}).encode() + b"\n\n"


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/calls", list_calls),
    ]
)

if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - the parent reads it
    uvicorn.run(app, fd=listener.fileno(), log_level="warning")
