from app.assistant.actions import action
from app.assistant.agent import AgentAssistant
from app.assistant.base import Assistant, Choices
from app.assistant.guardrails import Refusal
from app.assistant.loading import AssistantError, load_assistant

__all__ = ["AgentAssistant", "Assistant", "AssistantError", "Choices", "Refusal", "action", "load_assistant"]
