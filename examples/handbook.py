"""Answers from a folder of Markdown, with its sources. ``CHAT_ASSISTANT=examples.handbook:build make run``

Retrieval is PostgreSQL's full-text search, in a table of its own next to those of the chats. Matching passages are
numbered and added to the instructions; the numbers that the model cites become annotations.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

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
from markdown_it import MarkdownIt

from chatkit_postgres import AgentAssistant, RequestContext
from chatkit_postgres.db import Statement

FOLDER = Path(__file__).with_name("handbook_pages")
MAX_PASSAGES = 3

LOCK = 7_305_431
"""Any number; the lock makes two processes that start at once create the table one after the other."""
MAKE = Statement(
    "make_handbook",
    f"""
DO $$ BEGIN
  PERFORM pg_advisory_xact_lock({LOCK});
  CREATE TABLE IF NOT EXISTS example_handbook_sections (
    page text, number int, heading text, body text,
    words tsvector GENERATED ALWAYS AS (to_tsvector('english', heading || ' ' || body)) STORED,
    PRIMARY KEY (page, number));
END $$
""",
)
# One statement, so that no query sees a half-filled table.
FILL = Statement(
    "fill_handbook",
    """
WITH given AS (
  SELECT page, number, heading, body
    FROM jsonb_to_recordset(CAST(:sections AS jsonb)) s(page text, number int, heading text, body text)
), gone AS (
  DELETE FROM example_handbook_sections h
   WHERE NOT EXISTS (SELECT 1 FROM given WHERE (given.page, given.number) = (h.page, h.number))
)
INSERT INTO example_handbook_sections (page, number, heading, body) SELECT page, number, heading, body FROM given
ON CONFLICT (page, number) DO UPDATE SET heading = excluded.heading, body = excluded.body
""",
    sections="text",
)
FIND = Statement(
    "find_in_handbook",
    """
SELECT page, heading, body
  FROM example_handbook_sections, websearch_to_tsquery('english', :asked) query
 WHERE words @@ query
 ORDER BY ts_rank(words, query) DESC
 LIMIT :passages
""",
    asked="text",
    passages="bigint",
)


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
    start_prompts = MappingProxyType({"How many days of holiday do I have?": "an answer with its source"})

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
                    part.text, part.annotations = cited(part.text, found)
            yield event

    async def search(self, words: str) -> list[Passage]:
        """The best matches. The connection is released before the model is called."""
        if self.database is None:
            raise RuntimeError("the server gives an assistant its database before the first request")
        async with self._filling:
            if not self._is_filled:
                await self._fill()
                self._is_filled = True
        # Match any of the words, best matches first.
        asked = " or ".join(re.findall(r"\w+", words)[:50])
        # The handbook belongs to all users: its table has no owners.
        rows = await self.database.run_for_all_owners(FIND, asked=asked, passages=MAX_PASSAGES)
        return [Passage(**row) for row in rows]

    async def _fill(self) -> None:
        assert self.database is not None  # noqa: S101 - looked at by the caller
        given = [
            {"page": page.name, "number": number, "heading": heading, "body": body}
            for page in sorted(FOLDER.glob("*.md"))
            for number, (heading, body) in enumerate(sections(page.read_text(encoding="utf-8"), page.stem))
        ]
        await self.database.run_for_all_owners(MAKE)
        await self.database.run_for_all_owners(FILL, sections=json.dumps(given))


def sections(markdown: str, title: str) -> list[tuple[str, str]]:
    """Headings and the text below each; text before the first heading belongs to the title."""
    lines = markdown.splitlines()
    tokens = MarkdownIt().parse(markdown)
    heads = [(0, 0, title)] + [
        (token.map[0], token.map[1], inline.content)
        for token, inline in pairwise(tokens)
        if token.type == "heading_open" and token.level == 0 and token.map is not None
    ]
    ends = [start for start, _, _ in heads[1:]] + [len(lines)]
    bodies = ("\n".join(lines[begin:end]).strip() for (_, begin, _), end in zip(heads, ends, strict=True))
    return [(heading, body) for (_, _, heading), body in zip(heads, bodies, strict=True) if body]


def cited(answer: str, found: Sequence[Passage]) -> tuple[str, list[Annotation]]:
    """The answer without the numbers of passages, and the position of each, where a front end draws a mark."""
    text, annotations, rest = "", [], 0
    # Skips code, and the texts of links.
    for mark in re.finditer(r"`[^`]*`| ?\[(\d{1,2})\](?!\()", answer):
        number = int(mark[1] or 0)
        if 1 <= number <= len(found):
            text, rest = text + answer[rest : mark.start()], mark.end()
            source = FileSource(filename=found[number - 1].page, title=found[number - 1].heading)
            annotations.append(Annotation(source=source, index=len(text)))
    return text + answer[rest:], annotations


def build() -> Handbook:
    return Handbook()
