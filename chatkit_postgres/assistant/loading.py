"""From ``CHAT_ASSISTANT`` to something that answers."""

from importlib import import_module
from typing import Any

from agents import Agent

from chatkit_postgres.assistant.agent import AgentAssistant
from chatkit_postgres.assistant.base import Assistant, Choices
from chatkit_postgres.assistant.demo.assistant import DemoAssistant
from chatkit_postgres.assistant.mcp_servers import McpServers, read_servers
from chatkit_postgres.assistant.models import ModelOptions, for_all_runs, model_provider, transcriber


class AssistantError(Exception):
    """The import string does not lead to an assistant; the message says where it stopped."""


def load_assistant(import_string: str, options: ModelOptions) -> Assistant:
    """``package.module:attribute``, where the attribute is an ``agents.Agent``, an Assistant, or a function of
    no arguments that returns one of them. Raises AssistantError; McpError for the file of MCP servers; ProxyRefused for
    the environment's proxy."""
    models = model_provider(options)
    for_all_runs(options, models)
    module_name, _, attribute = import_string.partition(":")
    try:
        found: Any = import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
        if callable(found) and not isinstance(found, Agent | Assistant):
            found = found()
    except (Exception, SystemExit) as error:
        raise AssistantError(f"{import_string}: {type(error).__name__}: {error}") from error
    if isinstance(found, Agent):
        # Without a model, it is also shown what a front end has to deal with.
        found = DemoAssistant(found) if options.is_demo else AgentAssistant(found)
    if not isinstance(found, Assistant):
        raise AssistantError(f"{import_string} is a {type(found).__name__}, not an agents.Agent or an Assistant")
    assistant: Assistant = found
    assistant.transcriber = transcriber(options)
    if isinstance(assistant, AgentAssistant):
        assistant.is_traced = options.is_traced
        if options.mcp_file is not None:
            assistant.mcp = McpServers(read_servers(options.mcp_file))
    elif options.mcp_file is not None:
        raise AssistantError(f"{import_string} is no agents.Agent, and CHAT_MCP_FILE has tools for one")
    assistant.prepare(models, Choices(options.allowed_models, options.allowed_tools))
    return assistant
