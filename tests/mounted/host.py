"""An application of somebody's own, with its sign-in and its logging, that mounts the chat under /chat.

``uvicorn --factory tests.mounted.host:create_host``
"""

import gc
import logging
import secrets
import signal

from agents import Agent
from fastapi import FastAPI, Request, Response

from chatkit_postgres import create_app, lifespan
from chatkit_postgres.auth import User

SESSIONS: dict[str, str] = {}
COOKIE = "host_session"


async def user_of(request: Request) -> User | None:
    name = SESSIONS.get(request.cookies.get(COOKIE, ""))
    return User(name, {"roles": ["guest"]}) if name is not None else None


def _mounted() -> tuple[FastAPI, FastAPI]:
    logging.basicConfig(level=logging.INFO, format="HOST %(name)s %(message)s")
    before = (list(logging.getLogger().handlers), gc.get_threshold())
    chat = create_app(assistant=Agent(name="Host", instructions="Answer."), authenticate=user_of)
    host = FastAPI(lifespan=lifespan(chat))

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
            "signals": getattr(signal.getsignal(signal.SIGTERM), "__module__", ""),
        }

    host.mount("/chat", chat)
    return host, chat


def create_host() -> FastAPI:
    return _mounted()[0]


def create_host_without_lifespan() -> FastAPI:
    host = FastAPI()
    host.mount("/chat", _mounted()[1])
    return host
