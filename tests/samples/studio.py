"""Images that are generated, files that a message brings, and dictation."""

import base64
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, ImageGenerationTool, Runner
from chatkit.agents import AgentContext, ResponseStreamConverter, ThreadItemConverter, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import (
    Attachment,
    AudioInput,
    ThreadMetadata,
    ThreadStreamEvent,
    TranscriptionResult,
    UserMessageItem,
)
from openai.types.responses import ResponseInputContentParam, ResponseInputImageParam, ResponseInputTextParam

from chatkit_postgres import AgentAssistant, RequestContext

AGENT = Agent[Any](
    name="Studio",
    instructions="Draw.",
    tools=[ImageGenerationTool(tool_config={"type": "image_generation", "partial_images": 2})],
)


def heard(audio: AudioInput) -> TranscriptionResult:
    return TranscriptionResult(text=f"{len(audio.data)} bytes of {audio.media_type}")


class FileConverter(ThreadItemConverter):
    """Reads files as the server hands them out: the user's own, and made small enough for a model."""

    def __init__(self, context: RequestContext) -> None:
        self._context = context

    async def attachment_to_message_content(self, attachment: Attachment) -> ResponseInputContentParam:
        files = self._context.files
        assert files is not None
        if (image := await files.image(attachment.id)) is not None:
            encoded = base64.b64encode(image.data).decode()
            url = f"data:{image.content_type};base64,{encoded}"
            return ResponseInputImageParam(type="input_image", image_url=url, detail="auto")
        text = await files.text(attachment.id, 1000)
        return ResponseInputTextParam(type="input_text", text=f"<FILE>{text}</FILE>")


class StudioServer(ChatKitServer[RequestContext]):
    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        page = await self.store.load_thread_items(thread.id, None, 20, "desc", context)
        asked = await FileConverter(context).to_agent_input(list(reversed(page.data)))
        running = AgentContext[RequestContext](thread=thread, store=self.store, request_context=context)
        result = Runner.run_streamed(AGENT, asked, context=running)
        converter = ResponseStreamConverter(partial_images=2)
        async for event in stream_agent_response(running, result, converter=converter):
            yield event

    async def transcribe(self, audio_input: AudioInput, context: RequestContext) -> TranscriptionResult:
        return heard(audio_input)


def make_server(store: Any) -> StudioServer:
    return StudioServer(store)


class StudioAssistant(AgentAssistant):
    def __init__(self) -> None:
        super().__init__(AGENT)

    async def transcribe(self, audio: AudioInput, context: RequestContext) -> TranscriptionResult:
        return heard(audio)
