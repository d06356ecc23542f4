"""Answers from a folder of Markdown, with its sources. ``CHAT_ASSISTANT=examples.handbook:build make run``

Retrieval is PostgreSQL's full-text search, in a table of its own beside the chats. What fits a question is put
into the instructions, numbered; the numbers that the model cites become annotations.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from agents import Agent, RunContextWrapper
from chatkit.agents import AgentContext
from chatkit.types import (
    Annotation,
    AssistantMessageItem,
    FileSource,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadStreamEvent,
    UserMessageItem,
)
from sqlalchemy import text

from app.assistant import AgentAssistant
from app.context import RequestContext

FOLDER = Path(__file__).with_name("handbook_pages")
MOST_PASSAGES = 3

MAKE = """
CREATE TABLE IF NOT EXISTS example_handbook (
  page text, heading text, body text,
  words tsvector GENERATED ALWAYS AS (to_tsvector('english', heading || ' ' || body)) STORED,
  PRIMARY KEY (page, heading))
"""
FILL = """
INSERT INTO example_handbook (page, heading, body) VALUES (:page, :heading, :body)
ON CONFLICT (page, heading) DO UPDATE SET body = excluded.body
"""
FIND = """
SELECT page, heading, body
  FROM example_handbook, websearch_to_tsquery('english', :asked) query
 WHERE words @@ query
 ORDER BY ts_rank(words, query) DESC
 LIMIT :most
"""


@dataclass(frozen=True)
class Passage:
    page: str
    heading: str
    body: str


_found: ContextVar[list[Passage]] = ContextVar("found")


def instructions(_context: RunContextWrapper[AgentContext[RequestContext]], _agent: Agent) -> str:
    passages = "\n\n".join(f"[{number}] {p.heading}\n{p.body}" for number, p in enumerate(_found.get([]), 1))
    task = "Answer from the handbook alone, and cite its passages by their numbers, like [1]."
    return f"{task}\n\n{passages or 'Nothing in it fits.'}"


class Handbook(AgentAssistant):
    def __init__(self) -> None:
        super().__init__(Agent(name="Handbook", instructions=instructions))
        self._is_filled = False
        self._filling = asyncio.Lock()

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        asked = next((item for item in reversed(history) if isinstance(item, UserMessageItem)), None)
        words = " ".join(part.text for part in asked.content) if asked is not None else ""
        found = await self.search(words)
        _found.set(found)
        async for event in super().respond(history, context):
            if isinstance(event, ThreadItemDoneEvent) and isinstance(event.item, AssistantMessageItem):
                for part in event.item.content:
                    part.annotations = cited(part.text, found)
            yield event

    async def search(self, words: str) -> list[Passage]:
        """What fits best. The connection is given back before the model is asked."""
        if self.database is None:
            raise RuntimeError("the server gives an assistant its database before the first request")
        async with self._filling:
            if not self._is_filled:
                await self._fill()
                self._is_filled = True
        # Any of the words; the best first.
        asked = " or ".join(re.findall(r"\w+", words)[:50])
        async with self.database.connection() as connection:
            rows = await connection.execute(text(FIND), {"asked": asked, "most": MOST_PASSAGES})
            return [Passage(**row) for row in rows.mappings()]

    async def _fill(self) -> None:
        assert self.database is not None  # noqa: S101 - looked at by the caller
        async with self.database.connection() as connection:
            await connection.execute(text(MAKE))
            for page in sorted(FOLDER.glob("*.md")):
                for heading, body in sections(page.read_text()):
                    await connection.execute(text(FILL), {"page": page.name, "heading": heading, "body": body})


def sections(markdown: str) -> list[tuple[str, str]]:
    """Headings and what stands under them."""
    parts = re.split(r"^#+ (.+)$", markdown, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [(heading.strip(), body.strip()) for heading, body in pairs if body.strip()]


def cited(answer: str, found: Sequence[Passage]) -> list[Annotation]:
    """Each number in the answer that is a passage's."""
    marks = ((int(mark[1]), mark.end()) for mark in re.finditer(r"\[(\d{1,2})\]", answer))
    return [
        Annotation(source=FileSource(filename=found[number - 1].page, title=found[number - 1].heading), index=end)
        for number, end in marks
        if 1 <= number <= len(found)
    ]


def build() -> Handbook:
    return Handbook()
