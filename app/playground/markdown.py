"""Markdown of a model as HTML that is safe to show: parsed by markdown-it-py, coloured by Pygments, cleaned by nh3."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

LIGHT, DARK = "xcode", "lightbulb"
"""Of the styles of Pygments, those whose colours can be read on our pages: at least 4.5 to 1."""
LONGEST_COLOURED = 20_000
"""Characters of one block of code: a lexer may be slow on a hostile one."""

HIGHEST_HEADING = 3
"""A message of the page has a heading of the second level."""

TAGS = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote"),
    *("strong", "em", "s", "code", "pre", "span", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "span": {"class"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
}
SCHEMES = {"http", "https", "mailto"}

_FORMATTER: Any = HtmlFormatter(nowrap=True)


def rendered(text: str) -> list[str]:
    """HTML of the blocks of a text, one by one, so that a page that shows a growing text changes the last ones only."""
    tokens = _PARSER.parse(text)
    _fit_headings(tokens)
    return [_clean(_PARSER.renderer.render(block, _PARSER.options, {})) for block in _blocks(tokens)]


def code_style() -> str:
    """The style sheet of coloured code, for light and dark pages."""
    return "\n".join(
        (
            *_rules(LIGHT, ':root[data-theme="light"]'),
            *_rules(DARK, ':root[data-theme="dark"]'),
        )
    )


def _rules(style: str, root: str) -> Iterator[str]:
    formatter: Any = HtmlFormatter(style=style)
    for line in formatter.get_style_defs(f"{root} .markdown code").splitlines():
        # The page has a background of its own, and rules for what stands around the code.
        if line.startswith(f"{root} .markdown code ."):
            yield line


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    block: list[Token] = []
    depth = 0
    for token in tokens:
        if token.type in ("th_open", "td_open"):
            # The page's policy allows no styles inside of elements.
            style = str(token.attrs.pop("style", ""))
            if style:
                token.attrs["align"] = style.rpartition(":")[2]
        block.append(token)
        depth += token.nesting
        if depth == 0:
            yield block
            block = []


def _fit_headings(tokens: Sequence[Token]) -> None:
    """Below those of the page, without a gap between two levels."""
    headings = [token for token in tokens if token.type in ("heading_open", "heading_close")]
    levels = sorted({token.tag for token in headings})
    for token in headings:
        token.tag = f"h{min(6, HIGHEST_HEADING + levels.index(token.tag))}"


def _clean(html: str) -> str:
    return nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _coloured(code: str, language: str, _attributes: str) -> str:
    if not language or len(code) > LONGEST_COLOURED:
        return escape(code)
    try:
        return str(highlight(code, get_lexer_by_name(language), _FORMATTER))
    except ClassNotFound:
        return escape(code)


def _picture(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """A link: a picture of another host would tell it who reads."""
    address = str(tokens[index].attrs.get("src", ""))
    return f'<a href="{escape(address)}">{escape(tokens[index].content or address)}</a>'


_PARSER = MarkdownIt("gfm-like", {"html": False, "linkify": True, "highlight": _coloured})
_PARSER.add_render_rule("image", _picture)
