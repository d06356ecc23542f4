from chatkit_postgres.assistant.actions import action
from chatkit_postgres.assistant.agent import AgentAssistant
from chatkit_postgres.assistant.base import Assistant, Choices
from chatkit_postgres.assistant.guardrails import Refusal
from chatkit_postgres.assistant.loading import AssistantError, load_assistant

__all__ = ["AgentAssistant", "Assistant", "AssistantError", "Choices", "Refusal", "action", "load_assistant"]
