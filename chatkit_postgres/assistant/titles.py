"""Derives a thread's title from its first user message."""

import re

from chatkit.types import UserMessageItem

from chatkit_postgres.text import JOINERS, is_text_character

MAX_TITLE = 60
_FENCE = re.compile(r"(```+|~~~+) ?[\w+#.-]*")


def title_of(message: UserMessageItem) -> str | None:
    """The first line that is not a code fence, or else the name of the first file, cut at a word; None if neither."""
    text = "".join(part.text for part in message.content)
    if not text.strip() and message.attachments:
        text = message.attachments[0].name
    lines = (" ".join(line.split()) for line in text.splitlines())
    line = next((line for line in lines if line and not _FENCE.fullmatch(line)), "")
    line = "".join(character for character in line if is_text_character(character)).lstrip("#>*- ").strip(" " + JOINERS)
    if len(line) <= MAX_TITLE:
        return line or None
    cut = line[:MAX_TITLE].rstrip(JOINERS)
    whole_words, _, _ = cut.rpartition(" ")
    # Texts without spaces, and long URLs, are cut within a word.
    return f"{whole_words if len(whole_words) > MAX_TITLE // 2 else cut}…"
