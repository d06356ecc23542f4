"""Renders a model's Markdown as safe HTML: parsed by markdown-it-py, coloured by Pygments, sanitised by nh3."""

import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin
from pygments import format as formatted
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import Text
from pygments.util import ClassNotFound

from chatkit_postgres.pages import formulas

LIGHT, DARK = "xcode", "lightbulb"
"""Pygments styles whose colours have a contrast of at least 4.5 to 1 on our pages."""
COLOURING_SECONDS = 0.3
"""Maximum time for all code of one text, because crafted code can make a lexer slow; the rest has no colours."""

FORMULAS = "formulas"
HIGHEST_HEADING = 3
"""A message of the page has a heading of the second level."""

TAGS = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote"),
    *("strong", "em", "s", "code", "pre", "span", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
    "sup",
    *formulas.TAGS,
}
ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "span": {"class"},
    "ol": {"start", "class"},
    "li": {"class"},
    "th": {"align"},
    "td": {"align"},
    **formulas.ATTRIBUTES,
}
BOXES = {"[x] ": "\u2611 ", "[X] ": "\u2611 ", "[ ] ": "\u2610 "}
"""The boxes of a task list as characters: a disabled checkbox would need a label for screen readers. The rule of
mdit-py-plugins looks for the list of each item from the item back: 25,000 items would take two minutes."""
SCHEMES = {"http", "https", "mailto"}

_FORMATTER: Any = HtmlFormatter(nowrap=True)


def rendered(text: str) -> list[str]:
    """The HTML of each block of a text, so that a page with a growing text updates only the last blocks."""
    tokens = _PARSER.parse(text)
    _fit_headings(tokens)
    _show_boxes(tokens)
    options: Any = {**_PARSER.options, "highlight": _Colours()}
    options = OptionsDict(options)
    environment = {FORMULAS: formulas.Formulas()}
    return [_clean(_PARSER.renderer.render(block, options, environment)) for block in _blocks(tokens)]


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
        # The page has its own background, and its own rules for the element around the code.
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
    """Move headings below those of the page, without a gap between two levels."""
    headings = [token for token in tokens if token.type in ("heading_open", "heading_close")]
    levels = sorted({token.tag for token in headings})
    for token in headings:
        token.tag = f"h{min(6, HIGHEST_HEADING + levels.index(token.tag))}"


def _show_boxes(tokens: Sequence[Token]) -> None:
    for item, paragraph, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if (item.type, paragraph.type, inline.type) != ("list_item_open", "paragraph_open", "inline"):
            continue
        first = inline.children[0] if inline.children else None
        if first is not None and first.type == "text" and (box := BOXES.get(first.content[:4])) is not None:
            first.content = box + first.content[4:]
            item.attrSet("class", "task-item")


def _clean(html: str) -> str:
    return nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


class _Colours:
    def __init__(self) -> None:
        self._until: float | None = None

    def __call__(self, code: str, language: str, _attributes: str) -> str:
        if not language:
            return escape(code)
        try:
            return str(formatted(self._tokens(code, language), _FORMATTER))
        except ClassNotFound:
            return escape(code)

    def _tokens(self, code: str, language: str) -> Iterator[tuple[Any, str]]:
        seen = 0
        # The first text in a language also imports its lexer.
        lexer = get_lexer_by_name(language)
        self._until = self._until or time.monotonic() + COLOURING_SECONDS
        for place, kind, text in lexer.get_tokens_unprocessed(code):
            if time.monotonic() > self._until:
                break
            yield kind, text
            seen = place + len(text)
        yield Text, code[seen:]


def _image_as_link(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """Render a link instead: loading an image would tell its host who reads the page."""
    url = str(tokens[index].attrs.get("src", ""))
    return f'<a href="{escape(url)}">{escape(tokens[index].content or url)}</a>'


def _formula(is_block: bool) -> Callable[..., str]:
    def render(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, environment: Any) -> str:
        made: str = environment[FORMULAS].rendered(tokens[index].content, is_block=is_block)
        return made

    return render


def _footnote_number(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """Without a link: the address of the page names a conversation, and numbers repeat in each answer."""
    return f"<sup>{int(tokens[index].meta['id']) + 1}</sup>"


def _plain(html: str) -> Callable[..., str]:
    return lambda *_: html


# A short text can repeat a reference definition any number of times, so that the HTML becomes huge.
_PARSER = MarkdownIt("gfm-like", {"html": False, "linkify": True}).disable("reference")
_PARSER.use(footnote_plugin)
# Text without an end costs too much, and models do not write them.
_PARSER.disable("footnote_inline")
_PARSER.use(formulas.brackets_plugin)
_PARSER.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
_RULES: dict[str, Callable[..., str]] = {
    "image": _image_as_link,
    "footnote_ref": _footnote_number,
    "footnote_block_open": _plain('<ol class="footnotes">'),
    "footnote_block_close": _plain("</ol>"),
    "footnote_open": _plain("<li>"),
    "footnote_close": _plain("</li>"),
    "footnote_anchor": _plain(""),
    "math_inline": _formula(is_block=False),
    **dict.fromkeys(("math_block", "math_block_label", "math_inline_double"), _formula(is_block=True)),
}
for name, rule in _RULES.items():
    _PARSER.add_render_rule(name, rule)
