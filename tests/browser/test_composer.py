"""Files by button, drop and paste; quotations."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, Visitor
from tests.support.files import image_bytes
from tests.support.processes import eventually

DROP = """([kinds, name, type, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name, { type }));
  const given = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const kind of kinds) document.querySelector("main").dispatchEvent(new DragEvent(kind, given));
}"""
PASTE = """([name, type, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name, { type }));
  const given = { clipboardData: transfer, bubbles: true, cancelable: true };
  document.getElementById("text").dispatchEvent(new ClipboardEvent("paste", given));
}"""
DROPPED = ["dragenter", "dragover", "drop"]


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def choose(visitor: Visitor, *files: Path) -> None:
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name="Attach files").click()
    chooser.value.set_files(list(files))


def test_a_picture_is_chosen_previewed_sent_and_shown_after_a_reload(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "tree.png"
    file.write_bytes(image_bytes())
    choose(visitor, file)
    chip = visitor.page.locator(".chip")
    expect(chip).to_contain_text("tree.png")
    expect(chip.locator("img")).to_be_visible()
    expect(chip).not_to_have_class("chip uploading")
    visitor.send_message("Look at this")
    expect(chip).to_have_count(0)
    preview = visitor.page.locator(".user_message").get_by_role("button", name="tree.png").locator("img")
    eventually(lambda: preview.evaluate("image => image.naturalWidth") > 0)
    visitor.page.reload()
    eventually(lambda: preview.evaluate("image => image.naturalWidth") > 0)


def test_files_are_dropped_and_pasted_and_sent_without_a_word(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate(DROP, [DROPPED, "notes.txt", "text/plain", "dropped"])
    page.evaluate(PASTE, ["more.md", "text/markdown", "# pasted"])
    expect(page.locator(".chip")).to_have_count(2)
    send = page.get_by_role("button", name="Send", exact=True)
    expect(send).to_be_enabled()
    send.click()
    expect(page.locator(".user_message .file")).to_have_text(["notes.txt", "more.md"])
    visitor.wait_for_turn_end()
    expect(page.locator(".bubble")).to_have_count(0)


def test_a_dropped_file_is_removed_again_or_refused(visitor: Visitor) -> None:
    page = visitor.page
    # The page shows where to drop it.
    page.evaluate(DROP, [["dragenter", "dragover"], "a.txt", "text/plain", "x"])
    expect(page.locator("#drop")).to_be_visible()
    page.evaluate(DROP, [["dragleave"], "a.txt", "text/plain", "x"])
    expect(page.locator("#drop")).to_be_hidden()
    # It is removed, also from the server.
    page.evaluate(DROP, [DROPPED, "notes.txt", "text/plain", "dropped"])
    expect(page.locator(".chip:not(.uploading)")).to_have_count(1)
    with page.expect_request(lambda request: "attachments.delete" in (request.post_data or "")) as sent:
        page.get_by_role("button", name="Remove notes.txt").click()
    assert json.loads(sent.value.post_data or "")["params"]["attachment_id"].startswith("atc_")
    expect(page.locator(".chip")).to_have_count(0)
    # One that is not taken says why.
    visitor.expected = ["415"]
    page.evaluate(DROP, [DROPPED, "page.html", "text/html", "<script>1</script>"])
    expect(page.locator(".notice.danger")).to_contain_text("page.html: ")
    expect(page.locator(".chip")).to_have_count(0)


def test_a_selection_is_quoted(visitor: Visitor) -> None:
    visitor.send_message("markdown")
    visitor.page.evaluate(
        """() => {
          const range = document.createRange();
          range.selectNodeContents(document.querySelector(".markdown blockquote p"));
          getSelection().removeAllRanges();
          getSelection().addRange(range);
        }"""
    )
    visitor.answer.get_by_role("button", name="Quote").click()
    expect(visitor.page.locator("#quote")).to_contain_text("A quotation.")
    visitor.send_message("What about it?")
    expect(visitor.page.locator(".user_message .quoted")).to_have_text("A quotation.")
    expect(visitor.page.locator("#quote")).to_be_hidden()
    visitor.page.reload()
    expect(visitor.page.locator(".user_message .quoted")).to_have_text("A quotation.")


def test_a_whole_answer_is_quoted_and_the_quotation_taken_back(visitor: Visitor) -> None:
    visitor.send_message("task")
    visitor.send_message("mistake")
    visitor.answer.get_by_role("button", name="Quote").click()
    expect(visitor.page.locator("#quote")).to_contain_text("Two and two is four.")
    visitor.page.get_by_role("button", name="Remove the quotation").click()
    expect(visitor.page.locator("#quote")).to_be_hidden()
