"""A fake of the two routes of OpenAI's API that list hosted threads and their items. Its objects are those of the
``openai`` package; it pages, is slow, and refuses like the real one."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from openai import BaseModel
from openai.types.beta.chatkit import ChatKitThread
from openai.types.beta.chatkit.chatkit_thread_item_list import Data

KEY = "sk-hosted"
KINDS: Mapping[str, type[BaseModel]] = {
    str(get_args(kind.model_fields["type"].annotation)[0]): kind for kind in get_args(get_args(Data)[0])
}
BEGAN_AT = 1_760_000_000


def hosted_threads(
    users: int, threads: int, items: int, *, seed: int = 1
) -> tuple[list[ChatKitThread], dict[str, list[BaseModel]]]:
    """Threads of these users in turn, and items of all types spread over them."""
    dice = random.Random(seed)
    made = [
        ChatKitThread(
            id=f"cthr_{seed}_{number}",
            created_at=BEGAN_AT + number // 3,
            object="chatkit.thread",
            status=dice.choice(
                [{"type": "active"}, {"type": "locked", "reason": "paid"}, {"type": "closed", "reason": None}]
            ),
            title=dice.choice([None, f"Thread {number}", "Grüße 你好"]),
            user=f"hosted-{number % users}",
        )
        for number in range(threads)
    ]
    listed: dict[str, list[BaseModel]] = {thread.id: [] for thread in made}
    kinds = list(KINDS)
    for number in range(items):
        thread = made[number % threads]
        listed[thread.id].append(hosted_item(kinds[(number // threads) % len(kinds)], thread, number, dice))
    return made, listed


def hosted_item(kind: str, thread: ChatKitThread, number: int, dice: random.Random) -> BaseModel:
    words = f"item {number} " + dice.choice(["wörter", "你好世界", "a < b & c", "\u2028line", "🙂"])
    contents: dict[str, dict[str, Any]] = {
        "chatkit.user_message": {
            "content": [{"type": "input_text", "text": words}, {"type": "quoted_text", "text": f"quoted {number}"}],
            "attachments": [
                {
                    "id": f"cfile_{number}",
                    "type": dice.choice(["image", "file"]),
                    "name": f"{number}.png",
                    "mime_type": "image/png",
                    "preview_url": "https://files.example/preview",
                }
            ],
            "inference_options": dice.choice([None, {"model": "gpt-5", "tool_choice": {"id": "search"}}]),
        },
        "chatkit.assistant_message": {
            "content": [
                {
                    "type": "output_text",
                    "text": words,
                    "annotations": [
                        {"type": "url", "source": {"type": "url", "url": f"https://example.com/{number}"}},
                        {"type": "file", "source": {"type": "file", "filename": "a.pdf"}},
                    ],
                }
            ]
        },
        "chatkit.widget": {
            "widget": json.dumps({"type": "Card", "children": [{"type": "Text", "id": "t", "value": words}]})
        },
        "chatkit.client_tool_call": {
            "call_id": f"call_{number}",
            "name": "look",
            "arguments": json.dumps({"for": words}),
            "status": "completed",
            "output": json.dumps([words, None, 1.5]),
        },
        "chatkit.task": {"task_type": dice.choice(["custom", "thought"]), "heading": words, "summary": None},
        "chatkit.task_group": {
            "tasks": [
                {"type": kind, "heading": f"{words} {kind}", "summary": "done"}
                for kind in dice.choice([["thought"], ["thought", "custom"]])
            ]
        },
    }
    common = {"id": f"cthi_{number}", "created_at": BEGAN_AT + number // 7, "thread_id": thread.id}
    return KINDS[kind].model_validate({"type": kind, "object": "chatkit.thread_item", **common, **contents[kind]})


class HostedApi:
    """``failures``: how many of a hundred requests are refused with 429 or 500, or cut off."""

    def __init__(
        self,
        threads: list[ChatKitThread],
        items: Mapping[str, list[BaseModel]],
        *,
        failures: int = 0,
        delay_seconds: float = 0,
        page: int = 100,
    ) -> None:
        self.threads, self.items = threads, items
        self.requests: list[str] = []
        self._failures, self._delay, self._page = failures, delay_seconds, page
        self._dice, self._lock = random.Random(7), Lock()
        self.refuse_with: int | None = None

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], Any]:
        with self._lock:
            self.requests.append(path)
            fate = self._dice.randrange(100)
        time.sleep(self._delay)
        if headers.get("authorization") != f"Bearer {KEY}":
            return 401, {}, {"error": {"message": "wrong key", "code": "invalid_api_key"}}
        if self.refuse_with is not None:
            return self.refuse_with, {"x-should-retry": "false"}, {"error": {"message": "no"}}
        if fate < self._failures:
            status = (429, 500, 503)[fate % 3]
            return status, {"retry-after-ms": "5"}, {"error": {"message": "busy"}}
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        names = [unquote(part) for part in parts.path.strip("/").split("/")]
        if "openai-beta" not in headers:
            return 400, {}, {"error": {"message": "the beta header is missing"}}
        if names == ["chatkit", "threads"]:
            wanted: list[Any] = [t for t in self.threads if query.get("user", t.user) == t.user]
        elif len(names) == 4 and names[:2] == ["chatkit", "threads"] and names[2] in self.items:
            wanted = list(self.items[names[2]])
        else:
            return 404, {}, {"error": {"message": "no such thread"}}
        page = self._page_of(wanted, query)
        return (200, {}, page) if page is not None else (400, {}, {"error": {"message": "no such item"}})

    def _page_of(self, wanted: list[Any], query: Mapping[str, str]) -> Any:
        if query.get("order", "desc") == "desc":
            wanted.reverse()
        first = 0
        if "after" in query:
            places = [number for number, entry in enumerate(wanted) if entry.id == query["after"]]
            if not places:
                return None
            first = 1 + places[0]
        size = min(int(query.get("limit", "20")), self._page)
        page = wanted[first : first + size]
        return {
            "object": "list",
            "data": [entry.to_dict(mode="json") for entry in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": first + size < len(wanted),
        }


@contextmanager
def served(api: HostedApi) -> Iterator[str]:
    """Yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = api.answer(self.path.removeprefix("/v1"), headers)
            sent = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (more | {"Content-Type": "application/json", "Content-Length": str(len(sent))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients are killed."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running = Thread(target=server.serve_forever, daemon=True)
    running.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        running.join()
