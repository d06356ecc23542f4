"""Thread items as model input."""

import json
from typing import Any

from agents import TResponseInputItem
from chatkit.agents import ThreadItemConverter
from chatkit.types import (
    AssistantMessageItem,
    Attachment,
    HiddenContextItem,
    UserMessageTagContent,
)
from openai.types.responses import EasyInputMessageParam, ResponseInputTextParam


class HistoryConverter(ThreadItemConverter):
    """What the SDK leaves to its users, and one thing that it gets wrong for chat-completions models."""

    async def assistant_message_to_input(self, item: AssistantMessageItem) -> TResponseInputItem | None:
        # Plain text is read by both model APIs. The SDK's output_text parts fail with chat completions on the
        # second turn.
        text = "\n".join(part.text for part in item.content if part.text)
        return EasyInputMessageParam(type="message", role="assistant", content=text) if text else None

    async def attachment_to_message_content(self, attachment: Attachment) -> ResponseInputTextParam:
        return _text(f"The user attached a file: {attachment.name} ({attachment.mime_type}).")

    async def tag_to_message_content(self, tag: UserMessageTagContent) -> ResponseInputTextParam:
        return _text(f"@{tag.text}: {json.dumps(tag.data, ensure_ascii=False)}")

    async def hidden_context_to_input(self, item: HiddenContextItem) -> Any:
        if not isinstance(item.content, str):
            item = item.model_copy(update={"content": json.dumps(item.content, ensure_ascii=False)})
        return await super().hidden_context_to_input(item)


def _text(text: str) -> ResponseInputTextParam:
    return ResponseInputTextParam(type="input_text", text=text)
