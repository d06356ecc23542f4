"""Loads the assistant that ``CHAT_ASSISTANT``, or an object in its place, stands for."""

import importlib
import inspect
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from agents import Agent
from chatkit.server import ChatKitServer

from chatkit_postgres.assistant.agent import AgentAssistant
from chatkit_postgres.assistant.agent_builder import WorkflowAssistant, is_workflow
from chatkit_postgres.assistant.base import Assistant, Choices, Services
from chatkit_postgres.assistant.demo.assistant import DemoAssistant
from chatkit_postgres.assistant.hooks import HookError, check_hooks
from chatkit_postgres.assistant.models import ModelOptions, configure_agents_sdk, model_provider, transcriber
from chatkit_postgres.assistant.runs import follow_runs
from chatkit_postgres.assistant.server import AlreadyServingError, OwnAttachmentStoreError, ServerAssistant
from chatkit_postgres.assistant.tools.mcp_file import read_servers
from chatkit_postgres.assistant.tools.mcp_servers import McpServers
from chatkit_postgres.store import DatabaseStore


class AssistantError(Exception):
    """The import string does not lead to an assistant; the message names the place and the cause."""


def load_assistant(named: object, options: ModelOptions, store: DatabaseStore) -> Assistant:
    """``named`` is an import string, ``package.module:attribute``, or the object itself: an ``agents.Agent``, an
    Assistant, a ``ChatKitServer`` (a class, too), a ``run_workflow`` of Agent Builder, or a function that returns one
    of the first three and has no parameter but ``store``. Raises AssistantError; McpError for the file of MCP servers;
    ProxyRefused for the environment's proxy."""
    models = model_provider(options)
    if not options.is_hosted:
        configure_agents_sdk(options, models)
    follow_runs()
    name = named if isinstance(named, str) else _name_of(named)
    try:
        found = _made(_imported(named) if isinstance(named, str) else named, store)
        assistant = _assistant_of(found, options, store)
        if isinstance(found, Assistant | ChatKitServer):
            check_hooks(found)
    except AssistantError:
        raise
    except (Exception, SystemExit) as error:
        raise AssistantError(f"{name}: {_error_with_location(error)}") from error
    if assistant is None:
        raise AssistantError(
            f"{name} leads to a {type(found).__name__}, not to an agents.Agent, an Assistant or a ChatKitServer"
        )
    if assistant.database not in {None, store.database}:
        raise AssistantError(f"{name}: it serves another application already")
    if options.mcp_file is not None and not isinstance(assistant, AgentAssistant):
        raise AssistantError(f"{name} is no agents.Agent, and CHAT_MCP_FILE has tools for one")
    if options.can_search and not isinstance(assistant, AgentAssistant):
        raise AssistantError(f"{name} is no agents.Agent, and CHAT_SEARCH_TOOL is a tool for one")
    services = Services(
        database=store.database,
        transcriber=transcriber(options),
        mcp=McpServers(read_servers(options.mcp_file)) if options.mcp_file is not None else None,
        is_traced=options.is_traced,
        shows_tool_calls=options.shows_tool_calls,
        can_search=options.can_search,
        remembers_tool_calls=options.remembers_tool_calls,
    )
    assistant.prepare(models, Choices(options.allowed_models, options.allowed_tools), services)
    return assistant


def _imported(import_string: str) -> Any:
    module, _, attribute = import_string.partition(":")
    if not module or not attribute:
        raise AssistantError(f"{import_string!r}: use package.module:attribute")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        is_absent = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        if not is_absent or "is not a package" in str(error):
            raise
        raise AssistantError(
            f"{import_string}: there is no module {error.name} in {Path.cwd()}, nor among the installed packages; "
            "install a package under src/ with pip install -e ."
        ) from error
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def _made(found: Any, store: DatabaseStore) -> Any:
    """Call a function, or instantiate a class; return anything else as it is."""
    if not callable(found) or isinstance(found, Agent | Assistant | ChatKitServer):
        return found
    if is_workflow(found):
        return WorkflowAssistant(found)
    parameters = inspect.signature(found).parameters.values()
    is_class = inspect.isclass(found)
    wanted = [p for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if unknown := [p.name for p in wanted if p.name != "store"]:
        raise TypeError(
            f"it requires {', '.join(unknown)}, but only `store` is passed. Name a function without required parameters"
        )
    # A subclass with *args passes these on to ChatKitServer, which requires the store.
    passes_on = is_class and issubclass(found, ChatKitServer) and any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if any(p.kind is p.KEYWORD_ONLY for p in wanted):
        made = found(store=store)
    else:
        made = found(store) if wanted or passes_on else found()
    if inspect.iscoroutine(made):
        made.close()
        raise TypeError("it is an async function; name a plain one")
    return _made(made, store) if inspect.isclass(made) and not is_class else made


def _assistant_of(found: Any, options: ModelOptions, store: DatabaseStore) -> Assistant | None:
    match found:
        case Assistant():
            return found
        case ChatKitServer():
            return ServerAssistant(found, store)
        case Agent():
            # Without a model, the demo also has a scene for everything that a front end must be able to show.
            return DemoAssistant(found) if options.is_demo else AgentAssistant(found)
        case _:
            return None


def _name_of(given: object) -> str:
    return str(getattr(given, "__qualname__", None) or type(given).__qualname__)


def _error_with_location(error: BaseException) -> str:
    """The error, and the line of the team's code that raised it."""
    if isinstance(error, HookError | OwnAttachmentStoreError | AlreadyServingError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in {__file__, importlib.__file__} and not frame.filename.startswith("<")
    ]
    libraries = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    theirs = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    description = f"{type(error).__name__}: {error}"
    return f"{theirs[-1].filename}:{theirs[-1].lineno}: {description}" if theirs else description
