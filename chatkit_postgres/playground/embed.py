"""GET /embed: one conversation, for an iframe on pages of `CHAT_EMBED_ORIGINS`, which give it their users' tokens."""

import re
from collections.abc import Sequence
from html import escape

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from chatkit_postgres.playground.parts import STATIC, Check, add_parts, headers, policy

RENDERED_PER_MINUTE = 1200
"""Texts of one user that may be rendered: an answer that is being written is, ten times a second."""


def embed_router(origins: Sequence[str], check: Check, *, uploads: str = "", pictures: str = "") -> APIRouter:
    """``check`` raises for a request without a user, or beyond the limit above. The others as of ``policy``."""
    router = APIRouter()
    page = embedded((STATIC / "index.html").read_text(), origins)
    of_page = headers(policy(" ".join(origins), uploads=uploads, pictures=pictures))

    @router.get("/embed")
    async def embed() -> Response:
        return HTMLResponse(page, headers=of_page)

    add_parts(router, "/embed", check)
    return router


def embedded(page: str, origins: Sequence[str]) -> str:
    """The page of the playground without what is for it alone."""
    page = re.sub(r"<!-- playground only -->.*?<!-- end -->", "", page, flags=re.DOTALL)
    page = re.sub(r"<!-- embed only: (.*?) -->", r"\1", page, flags=re.DOTALL)
    page = page.replace("/playground/page.js", "embed/embed.js").replace("/playground/", "embed/")
    return page.replace("<body>", '<body class="embedded">').replace(
        "</title>", f'</title>\n  <meta name="origins" content="{escape(" ".join(origins))}">'
    )
