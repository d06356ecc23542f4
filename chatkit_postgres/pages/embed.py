"""GET /embed: one conversation, for an iframe on pages of `CHAT_EMBED_ORIGINS`, which give it their users' tokens."""

import re
from collections.abc import Sequence
from html import escape

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from chatkit_postgres.pages.parts import STATIC, Gate, add_parts, headers, policy


def embed_router(origins: Sequence[str], gate: Gate, *, uploads: str = "", images: str = "") -> APIRouter:
    """``uploads`` and ``images`` as of ``policy``."""
    router = APIRouter()
    page = embedded((STATIC / "index.html").read_text(), origins)
    of_page = headers(policy(" ".join(origins), uploads=uploads, images=images))

    @router.get("/embed")
    async def embed() -> Response:
        return HTMLResponse(page, headers=of_page)

    add_parts(router, "/embed", gate)
    return router


def embedded(page: str, origins: Sequence[str]) -> str:
    """The page of the playground without what is for it alone."""
    page = re.sub(r"<!-- playground only -->.*?<!-- end -->", "", page, flags=re.DOTALL)
    page = re.sub(r"<!-- embed only: (.*?) -->", r"\1", page, flags=re.DOTALL)
    page = page.replace("/playground/page.js", "embed/embed.js").replace("/playground/", "embed/")
    return page.replace("<body>", '<body class="embedded">').replace(
        "</title>", f'</title>\n  <meta name="origins" content="{escape(" ".join(origins))}">'
    )
