"""The playground in Firefox and in WebKit, Safari's engine: what a visitor does first."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.faults.harness import new_user
from tests.support.engines import Engine, firefox, until, webkit
from tests.support.processes import ChatProcess

ENTER = "\ue007"
ANSWERS = '[...document.querySelectorAll(".assistant_message[aria-busy=false]:has(.tools)")]'
IS_READY = '!document.querySelector("main").hasAttribute("aria-busy")'


@pytest.fixture(params=[firefox, webkit])
def open_engine(request: pytest.FixtureRequest) -> Callable[[Path], AbstractContextManager[Engine]]:
    opened: Callable[[Path], AbstractContextManager[Engine]] = request.param
    return opened


def reopen(engine: Engine, url: str) -> None:
    """Opens another page, and waits until the one before is gone: a driver may return while it is still there."""
    engine.evaluate("(window.isLeft = true)")
    engine.open(url)
    until(engine, "!window.isLeft")


def test_a_visitor_chats_stops_an_answer_and_finds_all_of_it_after_a_reload(
    open_engine: Callable[[Path], AbstractContextManager[Engine]], demo: ChatProcess, tmp_path: Path
) -> None:
    with open_engine(tmp_path) as engine:
        engine.open(f"{demo.base_url}/")
        until(engine, IS_READY)
        # Each test has a user of its own.
        engine.evaluate(f'localStorage.setItem("user", "{new_user()}") || sessionStorage.clear() || true')
        reopen(engine, f"{demo.base_url}/?")
        until(engine, IS_READY)
        engine.evaluate(
            '(window.faults = [], addEventListener("error", (event) => faults.push(event.message)),'
            ' addEventListener("unhandledrejection", (event) => faults.push(String(event.reason))), true)'
        )
        engine.type("#text", f"Show me markdown{ENTER}")
        until(engine, f"{ANSWERS}.length === 1")
        drawn = ("table", ".code pre", "math", "blockquote", ".task-item", ".footnotes")
        for selector in drawn:
            assert engine.evaluate(f"document.querySelectorAll('.assistant_message {selector}').length"), selector
        engine.type("#text", f"slow{ENTER}")
        until(engine, 'document.querySelectorAll(".assistant_message")[1]?.innerText.includes("stop it")')
        engine.evaluate('document.querySelector("#stop").click() || true')
        until(engine, f"{ANSWERS}.length === 2 && !document.querySelector('#send').hidden")
        before = engine.evaluate(f"{ANSWERS}.map((answer) => answer.innerText)")
        assert engine.evaluate("faults") == []
        reopen(engine, engine.evaluate("location.href").replace("/?#", "/#"))
        until(engine, f"{ANSWERS}.length === 2")
        assert engine.evaluate(f"{ANSWERS}.map((answer) => answer.innerText)") == before
        # Nothing reaches beyond the page's sides.
        assert engine.evaluate("document.documentElement.scrollWidth <= innerWidth")
