"""A scripted, OpenAI-compatible model server, run in a process of its own: ``python -m tests.support.model_server``.

It prints its port on the first line. The last user message decides the response (``model_script.py``).
``DRAW {"image": base64, "partials": [base64, ...]}`` generates an image, by the responses API. A transcription at
``/v1/audio/transcriptions`` contains the size of the recording; one that begins with ``fail`` and a status gets that
status.

With ``--minimal`` it omits every optional field and the ``event:`` lines, as careless servers do. With
``--strict`` it refuses what real APIs are known to refuse (``strict_model.py``).

``GET /calls`` returns every request, and every piece of text with the time at which it was sent.
"""

import asyncio
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.model_script import Script, json_script_of, script_of, user_texts
from tests.support.strict_model import refusal_of

IS_MINIMAL = "--minimal" in sys.argv
IS_STRICT = "--strict" in sys.argv
DISPENSABLE = frozenset({"object", "created", "created_at", "model", "sequence_number", "logprobs", "annotations"})
DISPENSABLE |= {"parallel_tool_calls", "tool_choice", "tools", "status", "role", "index", "total_tokens"}
DISPENSABLE |= {"output_index", "content_index", "summary_index", "cache_write_tokens"}

calls: list[dict[str, Any]] = []
_failed: Counter[str] = Counter()

# Token usage of every response, by both APIs.
USED = {"input": 70, "cached": 20, "output": 50, "reasoning": 5}
BASE: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": [], "output": []}
BASE |= {"parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress"}
USAGE: dict[str, Any] = {"input_tokens": 70, "output_tokens": 50, "total_tokens": 120}
USAGE |= {"input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0}}
USAGE |= {"output_tokens_details": {"reasoning_tokens": 5}}
CHAT_USAGE: dict[str, Any] = {"prompt_tokens": 70, "completion_tokens": 50, "total_tokens": 120}
CHAT_USAGE |= {"prompt_tokens_details": {"cached_tokens": 20}, "completion_tokens_details": {"reasoning_tokens": 5}}


class Call:
    """The log of one request: the port of its connection, the time of each piece of text, and whether the client
    read the stream to its end."""

    def __init__(self, api: str, request: Request, body: dict[str, Any]) -> None:
        self.log: dict[str, Any] = {"api": api, "body": body, "sent": [], "ended": None, "finished": False}
        self.log["traceparent"] = request.headers.get("traceparent")
        self.log["port"] = request.client.port if request.client is not None else None
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


def _refused(call: Call, script: Script) -> Response | None:
    """An error response instead of a stream, if the script or the strict mode wants one."""
    if IS_STRICT and (error := refusal_of(call.log["api"], call.log["body"])) is not None:
        call.log["refused"] = error["message"]
        return JSONResponse({"error": error}, status_code=400)
    status = script.status or (500 if script.then == "500" else 0)
    if not status or (script.failures and _failed[script.note] >= script.failures):
        return None
    _failed[script.note] += 1
    match script.shape:
        case "list":
            return JSONResponse([{"error": script.error}], status_code=status)
        case "detail":
            return JSONResponse({"detail": script.message}, status_code=status)
        case "text":
            return Response(script.message, status_code=status, media_type="text/plain")
        case _:
            headers = {"x-request-id": "req_scripted"} | (
                {"retry-after": script.retry_after} if script.retry_after else {}
            )
            return JSONResponse({"error": script.error}, status_code=status, headers=headers)


async def chat_completions(request: Request) -> Response:
    body = await request.json()
    call, script = Call("chat_completions", request, body), json_script_of(body) or script_of(body["messages"])
    if (refused := _refused(call, script)) is not None:
        return refused
    if not body.get("stream"):
        return JSONResponse(await _chat_completion(call, script))
    return StreamingResponse(_chat_chunks(call, script), media_type="text/event-stream")


async def _chat_completion(call: Call, script: Script) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join([piece async for piece in call.pieces(script)])}
    if call.log["body"].get("tools") and script.tools:
        message["tool_calls"] = [
            {"id": script.call_id(number), "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(script.tools)
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": CHAT_USAGE}
    return whole | {"choices": [choice]}


async def _chat_chunks(call: Call, script: Script) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    if script.reasoning:
        yield chunk({"reasoning_content": script.reasoning})
    async for piece in call.pieces(script):
        yield chunk({"content": piece})
    if script.refusal:
        yield chunk({"refusal": script.refusal})
    if script.then == "fail":
        yield _sse({"error": script.error})
        return
    if script.then == "close":
        return
    for number, (name, arguments) in enumerate(script.tools):
        function = {"name": name, "arguments": arguments[:1]}
        yield chunk(
            {"tool_calls": [{"index": number, "id": script.call_id(number), "type": "function", "function": function}]}
        )
        # Most servers send the arguments in several deltas.
        yield chunk({"tool_calls": [{"index": number, "function": {"arguments": arguments[1:]}}]})
    usual = "tool_calls" if script.tools else "stop"
    yield chunk({}, {"filter": "content_filter", "length": "length"}.get(script.then, usual))
    if (call.log["body"].get("stream_options") or {}).get("include_usage"):
        used = {"object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": CHAT_USAGE}
        yield _sse({"id": "c"} | used)
    yield b"data: [DONE]\n\n"


async def responses(request: Request) -> Response:
    body = await request.json()
    call, last = Call("responses", request, body), user_texts(body["input"])[-1]
    if last.startswith("DRAW "):
        drawn = _drawing_events(call, **json.loads(last.removeprefix("DRAW ")))
        return StreamingResponse(_framed(drawn), media_type="text/event-stream")
    script = json_script_of(body) or script_of(body["input"])
    if (refused := _refused(call, script)) is not None:
        return refused
    if not body.get("stream"):
        *_, last_event = [event async for event in _response_events(call, script)]
        return JSONResponse(last_event["response"])
    return StreamingResponse(_framed(_response_events(call, script)), media_type="text/event-stream")


async def _framed(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for event in events:
        name = b"" if IS_MINIMAL else b"event: " + event["type"].encode() + b"\n"
        yield name + _sse(event)


async def _drawing_events(call: Call, image: str, partials: list[str]) -> AsyncIterator[dict[str, Any]]:
    drawing = {"id": "ig_1", "type": "image_generation_call", "status": "in_progress", "result": None}
    yield {"type": "response.created", "response": BASE}
    yield {"type": "response.output_item.added", "output_index": 0, "item": drawing}
    for number, partial in enumerate(partials):
        shown = {"partial_image_index": number, "partial_image_b64": partial}
        yield {"type": "response.image_generation_call.partial_image", "item_id": "ig_1", "output_index": 0, **shown}
    done = drawing | {"status": "completed", "result": image}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    async for event in _response_events(call, Script(words=2)):
        if event["type"] == "response.completed":
            event["response"]["output"].insert(0, done)
        if event["type"] != "response.created":
            yield event


async def _response_events(call: Call, script: Script) -> AsyncIterator[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    yield {"type": "response.created", "response": BASE}
    if script.reasoning:
        thought = {"id": "rs_1", "type": "reasoning", "summary": []}
        at = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
        yield {"type": "response.output_item.added", "output_index": 0, "item": thought}
        yield {"type": "response.reasoning_summary_text.delta", "delta": script.reasoning, **at}
        yield {"type": "response.reasoning_summary_text.done", "text": script.reasoning, **at}
        output.append(thought | {"summary": [{"type": "summary_text", "text": script.reasoning}]})
        yield {"type": "response.output_item.done", "output_index": 0, "item": output[-1]}
    # The same id for every message, as a careless server might.
    message: dict[str, Any] = {"id": "msg_same", "type": "message", "role": "assistant", "content": []}
    message |= {"status": "in_progress"}
    at = {"item_id": "msg_same", "output_index": len(output), "content_index": 0}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    if script.refusal:
        part = {"type": "refusal", "refusal": ""}
    yield {"type": "response.output_item.added", "output_index": len(output), "item": message}
    yield {"type": "response.content_part.added", "part": part, **at}
    text = ""
    async for word in call.pieces(script):
        text += word
        yield {"type": "response.output_text.delta", "delta": word, "logprobs": [], **at}
    if script.then == "fail":
        failed = BASE | {"status": "failed", "error": {"code": script.code, "message": script.message}}
        yield {"type": "response.failed", "response": failed}
        return
    if script.then == "close":
        return
    if script.refusal:
        yield {"type": "response.refusal.delta", "delta": script.refusal, **at}
        yield {"type": "response.refusal.done", "refusal": script.refusal, **at}
        part = part | {"refusal": script.refusal}
    else:
        yield {"type": "response.output_text.done", "text": text, "logprobs": [], **at}
        part = part | {"text": text}
    output.append(message | {"status": "completed", "content": [part]})
    yield {"type": "response.output_item.done", "output_index": len(output) - 1, "item": output[-1]}
    for number, (name, arguments) in enumerate(script.tools):
        used = {"id": f"fc_{number}", "type": "function_call", "call_id": script.call_id(number), "name": name}
        output.append(used | {"arguments": arguments, "status": "completed"})
        at = {"item_id": f"fc_{number}", "output_index": len(output) - 1}
        started = used | {"arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": len(output) - 1, "item": started}
        for piece in (arguments[:1], arguments[1:]):
            yield {"type": "response.function_call_arguments.delta", "delta": piece, **at}
        yield {"type": "response.function_call_arguments.done", "arguments": arguments, "name": name, **at}
        yield {"type": "response.output_item.done", "output_index": len(output) - 1, "item": output[-1]}
    if script.then in {"filter", "length"}:
        reason = {"filter": "content_filter", "length": "max_output_tokens"}[script.then]
        incomplete = {"status": "incomplete", "incomplete_details": {"reason": reason}}
        yield {"type": "response.incomplete", "response": BASE | {"output": output, "usage": USAGE} | incomplete}
        return
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
    sent = event | {"sequence_number": 0}
    return b"data: " + json.dumps(_least(sent) if IS_MINIMAL else sent).encode() + b"\n\n"


def _least(value: Any) -> Any:
    """Removes optional fields and nulls."""
    if isinstance(value, dict):
        return {
            name: _least(field) for name, field in value.items() if name not in DISPENSABLE and field not in (None, "")
        }
    return [_least(element) for element in value] if isinstance(value, list) else value


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
    # uvicorn treats a given socket as a Unix socket and does not set TCP_NODELAY: each small write would wait about
    # 40 ms until the previous one is acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - the parent reads it
    uvicorn.run(app, fd=listener.fileno(), log_level="warning")
