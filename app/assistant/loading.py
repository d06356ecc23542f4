"""From ``CHAT_ASSISTANT`` to something that answers."""

from importlib import import_module
from typing import Any

from agents import Agent

from app.assistant.agent import AgentAssistant
from app.assistant.base import Assistant
from app.assistant.models import ModelOptions, model_provider, name_default_model


class AssistantError(Exception):
    """The import string does not lead to an assistant; the message says where it stopped."""


def load_assistant(import_string: str, options: ModelOptions) -> Assistant:
    """``package.module:attribute``, where the attribute is an ``agents.Agent``, an Assistant, or a function of
    no arguments that returns one of them. Raises AssistantError."""
    name_default_model(options)
    module_name, _, attribute = import_string.partition(":")
    try:
        found: Any = import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
        if callable(found) and not isinstance(found, Agent | Assistant):
            found = found()
    except (Exception, SystemExit) as error:
        raise AssistantError(f"{import_string}: {type(error).__name__}: {error}") from error
    if isinstance(found, Assistant):
        return found
    if isinstance(found, Agent):
        return AgentAssistant(found, model_provider(options))
    raise AssistantError(f"{import_string} is a {type(found).__name__}, not an agents.Agent or an Assistant")
