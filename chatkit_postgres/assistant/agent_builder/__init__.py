"""Runs a workflow that was exported from Agent Builder, unchanged: its file is a function ``run_workflow``."""

from chatkit_postgres.assistant.agent_builder.assistant import WorkflowAssistant, is_workflow

__all__ = ["WorkflowAssistant", "is_workflow"]
