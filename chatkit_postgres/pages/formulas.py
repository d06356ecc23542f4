"""Formulas of TeX as MathML, which browsers draw without third-party fonts or scripts."""

import re
import time
from html import escape

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

MAX_CHARACTERS = 2000
"""A longer formula is shown as it was written."""
MAX_LINES = 100
"""A formula of more lines is text."""
CONVERTING_SECONDS = 0.3
"""Maximum time for all formulas of one text; the rest is shown as it was written."""

_END_OF_LINES = re.compile(r"\\\][ \t]*$", re.MULTILINE)

# What the converter makes. Its output is not escaped, so it is sanitised as the rest is.
TAGS = {
    *("math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle", "mpadded"),
    *("msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mphantom", "menclose"),
}
ATTRIBUTES = {
    "math": {"display"},
    "mi": {"mathvariant"},
    "mo": {"stretchy", "fence", "form", "lspace", "rspace", "minsize", "maxsize", "accent", "movablelimits"},
    "mspace": {"width", "linebreak"},
    "mfrac": {"linethickness"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtable": {"columnalign", "columnlines", "rowlines", "rowspacing", "columnspacing"},
    "mtd": {"columnalign"},
    "mover": {"accent"},
    "munder": {"accentunder"},
    "menclose": {"notation"},
}


def brackets_plugin(parser: MarkdownIt) -> None:
    r"""``\(…\)`` in a line, ``\[…\]`` on lines of its own or in one, as models write them.

    mdit-py-plugins has such rules, too, but they look for each end in the whole text: 100,000 beginnings without an end
    would take hours.
    """
    parser.inline.ruler.before("escape", "math_brackets", _in_a_line)
    parser.block.ruler.before(
        "fence", "math_brackets", _on_lines, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )


def _in_a_line(state: StateInline, silent: bool) -> bool:
    begin = state.src[state.pos : state.pos + 2]
    if begin not in ("\\(", "\\["):
        return False
    first = state.pos + 2
    end = state.src.find("\\)" if begin == "\\(" else "\\]", first, first + MAX_CHARACTERS)
    if end < 0 or not state.src[first:end].strip():
        return False
    if not silent:
        token = state.push("math_inline" if begin == "\\(" else "math_inline_double", "math", 0)
        token.content = state.src[first:end]
    state.pos = end + 2
    return True


def _on_lines(state: StateBlock, start: int, last: int, silent: bool) -> bool:
    def text_of(line: int) -> str:
        return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()

    if state.is_code_block(start) or not text_of(start).startswith("\\["):
        return False
    begin = state.bMarks[start] + state.tShift[start] + 2
    found = _END_OF_LINES.search(state.src, begin, state.eMarks[min(last, start + MAX_LINES) - 1])
    if found is None:
        return False
    end = start + state.src.count("\n", begin, found.start())
    if not silent:
        token = state.push("math_block", "math", 0)
        token.content = "\n".join(text_of(line) for line in range(start, end + 1))[2:-2]
        token.map = [start, end + 1]
    state.line = end + 1
    return True


class Formulas:
    """The formulas of one text."""

    def __init__(self) -> None:
        self._until = time.monotonic() + CONVERTING_SECONDS

    def rendered(self, tex: str, *, is_block: bool) -> str:
        if len(tex) <= MAX_CHARACTERS and time.monotonic() < self._until:
            try:
                return str(convert(tex.strip(), display="block" if is_block else "inline"))
            except Exception:  # noqa: BLE001, S110 - a text that is still being written, or that no converter knows
                pass
        return f"<code>{escape(tex)}</code>"
