from app.assistant.base import Assistant
from app.assistant.loading import AssistantError, load_assistant

__all__ = ["Assistant", "AssistantError", "load_assistant"]
