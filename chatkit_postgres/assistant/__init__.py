from chatkit_postgres.assistant.actions import action
from chatkit_postgres.assistant.agent import AgentAssistant
from chatkit_postgres.assistant.approvals import ApprovalRequest
from chatkit_postgres.assistant.approvals.for_servers import approvals
from chatkit_postgres.assistant.base import Assistant, Choices
from chatkit_postgres.assistant.guardrails import Refusal
from chatkit_postgres.assistant.loading import AssistantError, load_assistant

__all__ = [
    "AgentAssistant",
    "ApprovalRequest",
    "Assistant",
    "AssistantError",
    "Choices",
    "Refusal",
    "action",
    "approvals",
    "load_assistant",
]
