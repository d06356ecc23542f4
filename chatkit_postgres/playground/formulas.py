"""Formulas of TeX as MathML, which browsers draw without fonts or scripts of others."""

import time
from html import escape

from latex2mathml.converter import convert

MAX_CHARACTERS = 2000
"""A longer formula is shown as it was written."""
CONVERTING_SECONDS = 0.3
"""Maximum time for all formulas of one text; the rest is shown as it was written."""

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
