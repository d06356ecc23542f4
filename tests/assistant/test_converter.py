"""What the model is given of a conversation."""

import json
from typing import Any

from chatkit.types import (
    FileAttachment,
    HiddenContextItem,
    InferenceOptions,
    UserMessageItem,
    UserMessageTagContent,
    UserMessageTextContent,
)

from app.assistant.converter import HistoryConverter
from tests.support.items import NAIVE, assistant_message, user_message


async def converted(*items: Any) -> list[dict[str, Any]]:
    return [dict(item) for item in await HistoryConverter().to_agent_input(list(items))]


async def test_an_answer_is_plain_text_which_both_model_apis_read() -> None:
    question, answer = await converted(user_message("t", "m", "Why?"), assistant_message("t", "a", "Because."))
    assert question["content"][0]["text"] == "Why?"
    assert (answer["role"], answer["content"]) == ("assistant", "Because.")


async def test_an_answer_without_words_is_left_out() -> None:
    assert await converted(assistant_message("t", "a", "")) == []


async def test_tags_and_attachments_reach_the_model_as_text() -> None:
    item = UserMessageItem(
        id="m",
        thread_id="t",
        created_at=NAIVE,
        content=[
            UserMessageTextContent(text="Look at "),
            UserMessageTagContent(id="1", text="invoice", data={"number": 7}),
        ],
        attachments=[FileAttachment(id="a", name="scan.pdf", mime_type="application/pdf")],
        inference_options=InferenceOptions(),
    )
    text = json.dumps(await converted(item))
    for part in ("Look at @invoice", '\\"number\\": 7', "scan.pdf (application/pdf)"):
        assert part in text


async def test_hidden_context_of_any_shape_reaches_the_model() -> None:
    for content in ("words", {"a": [1, 2]}):
        item = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content=content)
        assert "HiddenContext" in json.dumps(await converted(item))
