"""What the server tells a front end about itself."""

from mimetypes import MimeTypes

from agents.models import get_default_model

from chatkit_postgres.api.schemas import (
    AttachmentOptions,
    ClientConfig,
    ComposerOptions,
    DictationOptions,
    ModelChoice,
    Prompt,
    StartScreen,
    ToolChoice,
)
from chatkit_postgres.assistant import AgentAssistant, Assistant
from chatkit_postgres.assistant.demo.assistant import DemoAssistant
from chatkit_postgres.assistant.tools.labels import readable
from chatkit_postgres.settings import Settings

UNNAMED = "Assistant"
TOOL_ICON = "settings-slider"
_types = MimeTypes()
"""Python's own, and not the system's, which differ."""


def client_config(settings: Settings, assistant: Assistant) -> ClientConfig:
    return ClientConfig(
        name=settings.assistant_name or assistant.name or UNNAMED,
        composer=ComposerOptions(
            attachments=AttachmentOptions(
                enabled=bool(settings.attachment_types),
                max_size=settings.max_attachment_bytes,
                max_count=settings.max_attachments_per_message,
                accept={kind: extensions_of(kind) for kind in settings.attachment_types},
            ),
            models=[
                ModelChoice(id=name, label=name, default=name == settings.model) for name in settings.allowed_models
            ],
            tools=[
                ToolChoice(id=name, label=readable(name), icon=TOOL_ICON)
                for name in dict.fromkeys((*settings.allowed_tools, *sorted(assistant.own_tool_choices)))
            ],
            dictation=DictationOptions(enabled=settings.transcription_model is not None),
        ),
        start_screen=StartScreen(prompts=[Prompt(label=text, prompt=text) for text in assistant.start_prompts]),
    )


def model_name(settings: Settings, assistant: Assistant) -> str | None:
    """For the playground. None if the code of the assistant chooses the model."""
    if not isinstance(assistant, AgentAssistant):
        return None
    own = assistant.default_agent.model
    chooses = type(assistant).agent is not AgentAssistant.agent and not isinstance(assistant, DemoAssistant)
    if chooses or not isinstance(own, str | None):
        return None
    return "demo model" if settings.uses_demo_model else own or settings.model or get_default_model()


def extensions_of(media_type: str) -> list[str]:
    """For the file dialogs of browsers; none for a pattern, which they understand."""
    return sorted(_types.guess_all_extensions(media_type))
