from app.assistant.actions import action
from app.assistant.agent import AgentAssistant
from app.assistant.base import Assistant, Choices
from app.assistant.loading import AssistantError, load_assistant

__all__ = ["AgentAssistant", "Assistant", "AssistantError", "Choices", "action", "load_assistant"]
