"""Stores images that a model generates as files of the user."""

from typing import Any

from agents import Agent, ImageGenerationTool
from chatkit.agents import AgentContext, ResponseStreamConverter

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import FileRefused
from chatkit_postgres.ports import Files
from chatkit_postgres.validation import decode_base64


class StoredImages(ResponseStreamConverter):
    """Puts references into items instead of data URLs; a reference becomes a signed URL when the item is sent."""

    def __init__(self, files: Files, *, partial_images: int | None) -> None:
        super().__init__(partial_images=partial_images)
        self._files = files

    async def base64_image_to_url(
        self,
        image_id: str,  # noqa: ARG002 - the SDK's signature
        base64_image: str,
        partial_image_index: int | None = None,
    ) -> str:
        """Raises FileRefused if the data is not an image."""
        try:
            data = await decode_base64(base64_image)
        except ValueError:
            raise FileRefused("The model's image could not be read.") from None
        return await self._files.store_image(data, "preview" if partial_image_index is not None else "image")


def partial_images_of(agent: Agent) -> int | None:
    """The number of previews that the image tool is configured to send."""
    configs = [tool.tool_config for tool in agent.tools if isinstance(tool, ImageGenerationTool)]
    return next((config.get("partial_images") for config in configs), None)


def stored_images(agent: Agent[Any], context: AgentContext[RequestContext]) -> ResponseStreamConverter:
    files = context.request_context.files
    if files is None:
        return ResponseStreamConverter()
    return StoredImages(files, partial_images=partial_images_of(agent))
