"""A title for a thread, from the first thing its user said."""

from chatkit.types import UserMessageItem

LONGEST_TITLE = 60


def title_of(message: UserMessageItem) -> str | None:
    """The first line, cut at a word; None if there are no words to take it from."""
    text = "".join(part.text for part in message.content)
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    line = "".join(character for character in line if character.isprintable()).lstrip("#>*- ")
    if len(line) <= LONGEST_TITLE:
        return line or None
    cut = line[:LONGEST_TITLE]
    words, _, _ = cut.rpartition(" ")
    # Languages without spaces, and long addresses, are cut where they are.
    return f"{words if len(words) > LONGEST_TITLE // 2 else cut}…"
