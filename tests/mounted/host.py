"""An application of somebody's own, with its sign-in and its logging, that mounts the chat under /chat.

``uvicorn --factory tests.mounted.host:create_host``
"""

import gc
import logging
import secrets
import signal

from agents import Agent, OpenAIProvider, set_default_openai_client
from fastapi import FastAPI, Request, Response
from openai import AsyncOpenAI
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, get_contextvars

from chatkit_postgres import create_app, lifespan
from chatkit_postgres.auth import User

SESSIONS: dict[str, str] = {}
COOKIE = "host_session"


async def user_of(request: Request) -> User | None:
    name = SESSIONS.get(request.cookies.get(COOKIE, ""))
    return User(name, {"roles": ["guest"]}) if name is not None else None


class Tenant:
    """Binds what the host's own log lines say."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bind_contextvars(tenant="acme")
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            assert get_contextvars() == {"tenant": "acme"}, "the chat has left something behind"


def _mounted(*, runs_lifespan: bool) -> FastAPI:
    logging.basicConfig(level=logging.INFO, format="HOST %(name)s %(message)s")
    before = (list(logging.getLogger().handlers), gc.get_threshold())
    client = AsyncOpenAI(api_key="host", base_url="http://127.0.0.1:1/v1")
    set_default_openai_client(client)
    chat = create_app(assistant=Agent(name="Host", instructions="Answer."), authenticate=user_of)
    host = FastAPI(lifespan=lifespan(chat) if runs_lifespan else None)

    @host.post("/sign-in")
    async def sign_in(user: str, response: Response) -> None:
        key = secrets.token_urlsafe()
        SESSIONS[key] = user
        response.set_cookie(COOKIE, key, httponly=True, samesite="lax")

    @host.get("/process")
    async def process() -> dict[str, object]:
        """What the chat must leave alone."""
        return {
            "logging": list(logging.getLogger().handlers) == before[0],
            "collector": gc.get_threshold() == before[1] and gc.get_freeze_count() == 0,
            "agents": OpenAIProvider().get_model("m")._client is client,  # type: ignore[attr-defined] # as a run would
            "bound": get_contextvars().get("tenant"),
            "signals": getattr(signal.getsignal(signal.SIGTERM), "__module__", ""),
        }

    host.mount("/chat", chat)
    host.add_middleware(Tenant)
    return host


def create_host() -> FastAPI:
    return _mounted(runs_lifespan=True)


def create_host_without_lifespan() -> FastAPI:
    return _mounted(runs_lifespan=False)
