"""The page of development mode: it is there, it is ours alone, and its parts load."""

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from chatkit_postgres.pages import formulas, markdown
from chatkit_postgres.pages.markdown import ATTRIBUTES, SCHEMES, TAGS, rendered
from chatkit_postgres.pages.parts import STATIC
from tests.support.processes import ChatProcess, http


def test_the_page_and_all_its_parts_load_under_a_strict_policy(demo: ChatProcess) -> None:
    page = http.get(f"{demo.base_url}/")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    parts = re.findall(r'(?:src|href)="(/playground/[^"]+)"', page.text)
    assert len(parts) == 6
    # The list grows while it is walked: modules import modules.
    for part in parts:
        answer = http.get(f"{demo.base_url}{part}")
        assert answer.status_code == 200, part
        assert answer.headers["x-content-type-options"] == "nosniff"
        found = [f"/playground/{name}" for name in re.findall(r'from "\./([^"]+)"', answer.text)]
        parts += [name for name in dict.fromkeys(found) if name not in parts]
    # The page in an iframe has two modules of its own: tests/browser/test_embed.py.
    assert {path.name for path in STATIC.iterdir()} - {"index.html", "embed.js", "host.js"} == {
        part.rpartition("/")[2] for part in parts
    } - {"code.css"}
    # Nothing on it is somebody else's.
    assert re.findall(r'(?:src|href)="https?:', page.text) == []


def test_no_other_file_is_handed_out(demo: ChatProcess) -> None:
    for path in ("playground.py", "..%2fplayground.py", "%2e%2e/playground.py", ""):
        assert http.get(f"{demo.base_url}/playground/{path}").status_code == 404


def test_markdown_becomes_blocks_that_are_safe_to_show(demo: ChatProcess) -> None:
    text = (
        "# A\n\n<script>x</script> [a](javascript:x) ![p](https://h/p.png)\n\n"
        "```python\nimport os\n```\n\n|a|b|\n|-|-:|\n|1|2|"
    )
    answer = http.post(f"{demo.base_url}/playground/markdown", json={"text": text})
    title, paragraph, code, table = answer.json()["blocks"]
    assert title == "<h3>A</h3>\n"
    assert paragraph.startswith('<p>&lt;script&gt;x&lt;/script&gt; [a](javascript:x) <a href="https://h/p.png"')
    assert '<span class="kn">import</span>' in code
    assert '<td align="right">2</td>' in table


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"text": 1}', "application/json", 422),
        (b"{", "application/json", 422),
        (b'{"text": "x"}', "text/plain", 415),
        (b'{"text": "' + b"x" * 2**21 + b'"}', "application/json", 422),
    ],
)
def test_markdown_that_is_none_is_refused(demo: ChatProcess, body: bytes, content_type: str, status: int) -> None:
    answer = http.post(f"{demo.base_url}/playground/markdown", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "request_id"}


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 20_000,
        "> " * 20_000,
        "*" * 20_000,
        "`" * 20_001,
        "|a" * 5_000 + "\n" + "|-" * 5_000,
        "1. " * 9_000,
        "[a]: http://x/" + "y" * 20_000 + "\n\n" + "[a]" * 2_000,
        "```csharp\n" + "x y\n" * 20_000 + "```",
        # As long as a text may be: what needs the square of its length does not end in time.
        "\\(" * 60_000,
        "\\[\n" * 45_000,
        "$a " * 66_000,
        "^[" * 100_000,
        "[^a]" * 50_000,
        "- [x] a\n" * 25_000,
    ],
    ids=[
        *("brackets", "quotes", "stars", "ticks", "table", "lists", "definitions", "code"),
        *("formulas", "formulas on lines", "dollars", "inline footnotes", "footnotes", "tasks"),
    ],
)
def test_hostile_markdown_costs_what_other_markdown_costs(demo: ChatProcess, hostile: str) -> None:
    answer = http.post(f"{demo.base_url}/playground/markdown", json={"text": hostile}, timeout=240)
    assert answer.status_code == 200
    assert len(answer.content) < 20 * len(hostile)


def test_code_keeps_its_text_when_there_is_no_time_for_its_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def f(x):\n    return x\n" * 3
    coloured = rendered(f"```python\n{code}```")[0]
    monkeypatch.setattr(markdown, "COLOURING_SECONDS", -1)
    plain = rendered(f"```python\n{code}```")[0]
    assert '<span class="k">def</span>' in coloured
    assert "<span" not in plain
    assert code in plain


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("- [x] done\n- [ ] open", '<li class="task-item">\u2611 done</li>\n<li class="task-item">\u2610 open</li>'),
        ("$x^2$ and \\(y\\)", "<msup><mi>x</mi><mn>2</mn></msup></mrow></math> and <math"),
        ("\\[\n\\frac{a}{b}\n\\]", '<math display="block"><mrow><mfrac>'),
        ("$$\n\\sqrt 2\n$$", '<math display="block"><mrow><msqrt>'),
        ("costs $5, or $6 with it", "<p>costs $5, or $6 with it</p>"),
        ("one[^a], two[^b], one[^a]\n\n[^a]: A\n[^b]: B", "<p>one<sup>1</sup>, two<sup>2</sup>, one<sup>1</sup></p>"),
        ("one[^a]\n\n[^a]: A *b*", '<ol class="footnotes"><li><p>A <em>b</em></p>\n</li></ol>'),
        ("$\\frac{$", "<code>\\frac{</code>"),
        (f"${'x' * 2001}$", f"<code>{'x' * 2001}</code>"),
        ("$\\text{<img src=x onerror=alert(1)>}$", "<mrow><mtext>"),
    ],
)
def test_task_lists_footnotes_and_formulas(text: str, html: str) -> None:
    assert html in "".join(rendered(text))


def test_formulas_are_as_they_were_written_when_there_is_no_time_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "CONVERTING_SECONDS", -1)
    assert "<code>x^2</code>" in rendered("$x^2$")[0]


class Inspector(HTMLParser):
    """What a browser would find that it should not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.found.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES.get(tag, set()) | ({"rel", "target"} if tag == "a" else set()):
                self.found.append(f"{tag} {name}")
            if name == "href" and urlsplit(value or "").scheme not in SCHEMES | {""}:
                self.found.append(f"href {value}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"comment {data}")


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<a href='java\tscript:alert(1)' onclick=alert(1) style='position:fixed'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe><base href='//evil.example'>",
    "<form action='//evil.example'><input name=q><button>go</button></form>",
    "<style>*{display:none}</style><link rel=stylesheet href='//evil.example'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "[x](javascript:alert(1)) [y](vbscript:x) [z](data:text/html;base64,PHNjcmlwdD4=) <javascript:alert(1)>",
    "[x](jAvAsCrIpT&colon;alert(1)) [y](&#106;avascript:alert(1)) ![p](javascript:alert(1))",
    '[x](https://h/"onmouseover="alert(1)) ![p](https://h/x.png "" onerror=alert(1)")',
    '```html" onmouseover="alert(1)\n<script>alert(1)</script>\n```',
    "| <img src=x onerror=alert(1)> |\n|-|\n| `<script>` |",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_but_text_comes_of_hostile_markdown(hostile: str) -> None:
    inspector = Inspector()
    inspector.feed("".join(rendered(hostile)))
    assert inspector.found == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_cleaning_holds_without_the_parser(hostile: str) -> None:
    """As if a parser, or a lexer that colours code, had let markup through."""
    inspector = Inspector()
    inspector.feed(markdown._clean(hostile))
    assert inspector.found == []


def test_what_is_harmful_would_be_found() -> None:
    inspector = Inspector()
    inspector.feed("".join(HOSTILE[:6]))
    assert {"script", "img", "svg", "a onclick", "href data:text/html,<script>alert(1)</script>"} <= set(
        inspector.found
    )
