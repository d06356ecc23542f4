"""A question for an approval in the page: the card, its buttons, and the list of conversations."""

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, Visitor
from tests.support.accessibility import violations


def ask(visitor: Visitor) -> None:
    visitor.send_message("approval")
    expect(visitor.page.locator(".widget").last).to_contain_text("Delete old drafts")


def test_a_tool_waits_for_the_user_and_runs_after_approval(open_page: OpenPage, pictures: Path) -> None:
    visitor = open_page()
    ask(visitor)
    page = visitor.page
    row = page.locator(f'#threads a[data-thread="{visitor.thread}"]')
    expect(row).to_contain_text("waiting for you")
    assert violations(page) == []
    page.screenshot(path=pictures / "approval.png")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".widget").last).to_contain_text("Approved.")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    expect(visitor.answer).to_contain_text("3 drafts are deleted")
    visitor.wait_for_turn_end()
    expect(row).not_to_contain_text("waiting for you")
    page.screenshot(path=pictures / "approved.png")
    page.reload()
    expect(page.locator(".widget").last).to_contain_text("Approved.")
    visitor.send_message("What do you remember?")
    expect(visitor.answer).to_contain_text("3 drafts are deleted")


def test_a_refusal_after_a_reload_and_in_another_tab(open_page: OpenPage) -> None:
    visitor = open_page()
    ask(visitor)
    visitor.page.reload()
    other = open_page(user=visitor.user)
    other.open_page(visitor.thread)
    expect(other.page.get_by_role("button", name="Refuse")).to_be_visible()
    visitor.page.get_by_role("button", name="Refuse").click()
    expect(visitor.answer).to_contain_text("You have refused it")
    visitor.wait_for_turn_end()
    # The other tab still shows the question: it is answered with what there is.
    other.page.get_by_role("button", name="Approve").click()
    expect(other.page.locator(".widget").last).to_contain_text("Refused.")
    expect(other.answer).to_contain_text("You have refused it")


def test_a_new_message_closes_the_question(open_page: OpenPage) -> None:
    visitor = open_page()
    ask(visitor)
    visitor.send_message("Never mind")
    expect(visitor.page.locator(".widget").last).to_contain_text("Not answered.")
    expect(visitor.page.get_by_role("button", name="Approve")).to_have_count(0)
