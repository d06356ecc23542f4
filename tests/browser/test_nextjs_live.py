"""The Next.js example while an answer is running: Stop, a reload, another thread, a closed page."""

from itertools import pairwise

import pytest
from playwright.sync_api import Page, Request, expect
from sqlalchemy import URL

from tests.browser.conftest import SLOW, SignIn, Visitor, send_message, turns
from tests.support.processes import eventually

# The first of them may have to install and build the example.
pytestmark = pytest.mark.timeout(600)

OPEN = "threadId => void document.querySelector('openai-chatkit').setThreadId(threadId)"
FOLLOWS = "The assistant is still answering."


def begin_slow_answer(ada: Visitor) -> str:
    """Returns the id of its thread."""
    send_message(ada.page, "slow")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is a slow")
    return ada.page.url.partition("?thread=")[2]


def becomes_whole(page: Page) -> None:
    expect(page.locator(".assistant_message")).to_have_text(SLOW)
    expect(page.get_by_role("status").filter(has_text=FOLLOWS)).to_have_count(0)
    expect(page.locator("li.user_message")).to_have_text("slow")


def stops(ada: Visitor) -> list[Request]:
    return [request for request in ada.requests if request.url.endswith("/stop")]


def test_an_answer_goes_on_after_a_reload_and_becomes_whole(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    begin_slow_answer(ada)
    seen = ada.page.locator(".assistant_message").inner_text().strip()
    ada.page.reload()
    answer = ada.page.locator(".assistant_message")
    expect(answer).to_contain_text(seen)
    expect(ada.page.get_by_role("status").filter(has_text=FOLLOWS)).to_be_visible()
    words = len(answer.inner_text())
    eventually(lambda: words < len(answer.inner_text()) < len(SLOW))
    becomes_whole(ada.page)
    assert turns(shared_database, "ada") == ["completed"]
    assert stops(ada) == []
    # Twice a second at most, but for the last one.
    *updates, _ = ada.page.evaluate("window.updates")
    assert len(updates) > 5
    assert all(later - earlier > 450 for earlier, later in pairwise(updates))


def test_stop_ends_the_turn_and_keeps_its_text(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    thread = begin_slow_answer(ada)
    answer = ada.page.locator(".assistant_message")
    ada.page.get_by_role("button", name="Stop", exact=True).click()
    eventually(lambda: turns(shared_database, "ada") == ["stopped"])
    seen = answer.inner_text().strip()
    ada.page.reload()
    expect(answer).to_contain_text(seen)
    assert SLOW.startswith(answer.inner_text().strip())
    assert answer.inner_text().strip() != SLOW
    (stop,) = stops(ada)
    assert stop.url == f"{ada.base_url}/api/threads/{thread}/stop"


def test_stop_after_a_reload_ends_the_turn(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    begin_slow_answer(ada)
    ada.page.reload()
    ada.page.get_by_role("button", name="Stop answering").click()
    expect(ada.page.get_by_role("status").filter(has_text=FOLLOWS)).to_have_count(0)
    assert turns(shared_database, "ada") == ["stopped"]
    answer = ada.page.locator(".assistant_message")
    expect(answer).to_contain_text("This is a slow")
    assert len(answer.inner_text()) < len(SLOW)


def test_an_answer_that_ends_while_nobody_looks_is_whole_on_the_next_visit(
    sign_in: SignIn, shared_database: URL
) -> None:
    ada = sign_in("Ada")
    begin_slow_answer(ada)
    url = ada.page.url
    ada.page.goto("about:blank")
    ada.page.wait_for_timeout(1000)
    assert turns(shared_database, "ada") == ["running"]
    eventually(lambda: turns(shared_database, "ada") == ["completed"])
    ada.page.goto(url)
    becomes_whole(ada.page)
    assert stops(ada) == []


def test_an_answer_goes_on_while_another_thread_is_open(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "task")
    expect(ada.page.locator(".user_message")).to_have_text("task")
    eventually(lambda: turns(shared_database, "ada") == ["completed"])
    other = ada.page.url.partition("?thread=")[2]
    ada.page.evaluate(OPEN, None)
    thread = begin_slow_answer(ada)
    ada.page.evaluate(OPEN, other)
    expect(ada.page.locator(".user_message")).to_have_text("task")
    ada.page.wait_for_timeout(500)
    expect(ada.page.locator("li")).to_have_count(1)
    expect(ada.page.get_by_role("status").filter(has_text=FOLLOWS)).to_have_count(0)
    ada.page.evaluate(OPEN, thread)
    expect(ada.page.get_by_role("status").filter(has_text=FOLLOWS)).to_be_visible()
    becomes_whole(ada.page)
    assert turns(shared_database, "ada") == ["completed", "completed"]
    assert stops(ada) == []


def test_a_message_right_after_stop_is_not_stopped(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    begin_slow_answer(ada)
    ada.page.get_by_role("button", name="Stop", exact=True).click()
    send_message(ada.page, "Hello")
    expect(ada.page.locator(".assistant_message").last).to_contain_text("This is message number 2 of yours")
    eventually(lambda: turns(shared_database, "ada") == ["stopped", "completed"])


def test_a_new_message_is_read_by_chatkit_alone(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    begin_slow_answer(ada)
    ada.page.reload()
    expect(ada.page.get_by_role("status").filter(has_text=FOLLOWS)).to_be_visible()
    send_message(ada.page, "Hello")
    expect(ada.page.get_by_role("status").filter(has_text=FOLLOWS)).to_have_count(0)
    expect(ada.page.locator(".assistant_message").last).to_contain_text("This is message number 2 of yours")
    eventually(lambda: turns(shared_database, "ada") == ["superseded", "completed"])
