"""What the server lets a message choose: a model, a tool, files, and speech in place of typing."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.conftest import OpenPage, launched, page_opener
from tests.support.processes import ChatProcess, ModelServer

MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One that hears something."""
    with launched(*MICROPHONE) as browser:
        yield browser


@pytest.fixture(scope="module")
def choosy(
    tmp_path_factory: pytest.TempPathFactory, embedded_settings: dict[str, str], model_server: ModelServer
) -> Iterator[ChatProcess]:
    settings = {
        "OPENAI_BASE_URL": model_server.url,
        "OPENAI_API_KEY": "none",
        "CHAT_MODEL": "large",
        "CHAT_MODEL_API": "chat_completions",
        "CHAT_ALLOWED_MODELS": "small,large",
        "CHAT_ALLOWED_TOOLS": "current_time",
        "CHAT_ATTACHMENT_TYPES": "image/png",
        "CHAT_TRANSCRIPTION_MODEL": "hears",
        "CHAT_ASSISTANT_NAME": "Harbour office",
    }
    server = ChatProcess(tmp_path_factory.mktemp("choosy"), **embedded_settings, **settings)
    yield server.wait_until_ready()
    assert server.stop() == 0


@pytest.fixture
def open_page(chromium: Browser, choosy: ChatProcess) -> Iterator[OpenPage]:
    yield from page_opener(chromium, choosy)


def test_a_message_names_the_model_and_the_tool_that_were_chosen(
    open_page: OpenPage, model_server: ModelServer
) -> None:
    visitor = open_page()
    page = visitor.page
    expect(page.get_by_label("Model")).to_have_value("large")
    expect(page.locator("#model")).to_have_text("large")
    for model, tool in (("large", ""), ("small", "current_time"), ("small", "")):
        page.get_by_label("Model").select_option(model)
        if tool:
            page.get_by_label("Tool").select_option(tool)
        before = len(model_server.calls())
        visitor.send_message(f"with {model} {tool}")
        body = model_server.calls()[before]["body"]
        assert body["model"] == model
        assert ("current_time" in str(body.get("tool_choice"))) is bool(tool)
        # A tool is demanded once; a model stays chosen.
        expect(page.get_by_label("Tool")).to_have_value("")
        expect(page.get_by_label("Model")).to_have_value(model)


def test_the_page_bears_the_name_and_the_limits_of_the_server(open_page: OpenPage) -> None:
    page = open_page().page
    expect(page.locator(".name")).to_have_text("Harbour office")
    assert page.title() == "Harbour office"
    expect(page.locator("#files")).to_have_attribute("accept", "image/png,.png")


def test_what_is_said_stands_in_the_field(open_page: OpenPage) -> None:
    visitor = open_page()
    page = visitor.page
    visitor.context.grant_permissions(["microphone"], origin=visitor.base_url)
    page.get_by_label("Message", exact=True).fill("As I said:")
    page.get_by_role("button", name="Dictate").click()
    expect(page.get_by_role("status").first).to_have_text("Recording")
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Stop dictating").click()
    field = page.get_by_label("Message", exact=True)
    expect(field).not_to_have_value("As I said:")
    assert field.input_value().startswith("As I said: You said ")
    expect(page.get_by_role("button", name="Dictate")).to_be_enabled()


def test_a_message_that_was_not_stored_keeps_its_tool(open_page: OpenPage) -> None:
    """Or the second attempt would be another message, which the server stores beside the first."""
    visitor = open_page()
    page = visitor.page
    visitor.expected = ["net::ERR"]
    bodies: list[str] = []

    def refuse(route: Route) -> None:
        if "threads.create" not in (route.request.post_data or ""):
            return route.continue_()
        bodies.append(f"{route.request.headers['idempotency-key']} {route.request.post_data}")
        return route.abort() if len(bodies) < 4 else route.continue_()

    page.route("**/api/chatkit", refuse)
    page.get_by_label("Tool").select_option("current_time")
    page.get_by_label("Message", exact=True).fill("What time is it?")
    page.keyboard.press("Enter")
    expect(page.locator("#ended")).to_contain_text("Your text is back in its field.")
    expect(page.get_by_label("Tool")).to_have_value("current_time")
    page.keyboard.press("Enter")
    visitor.wait_for_turn_end("What time is it?")
    expect(page.get_by_label("Tool")).to_have_value("")
    assert len(bodies) == 4
    assert len(set(bodies)) == 1
