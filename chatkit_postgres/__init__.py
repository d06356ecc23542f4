"""The durable, multi-user backend for OpenAI's ChatKit.

The names exported here are stable, as are ``chatkit_postgres.auth.User``, ``chatkit_postgres.db.Statement`` and
``chatkit_postgres.testing.demo_answer``; all others may change with each version. Names are imported on first use,
because some of them need SDKs that take seconds to import.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatkit_postgres.assistant import AgentAssistant, ApprovalRequest, Assistant, Refusal, action, approvals
    from chatkit_postgres.context import RequestContext
    from chatkit_postgres.db import Database
    from chatkit_postgres.main import create_app, lifespan
    from chatkit_postgres.settings import Settings
    from chatkit_postgres.store import DatabaseStore

__all__ = [
    "AgentAssistant",
    "ApprovalRequest",
    "Assistant",
    "Database",
    "DatabaseStore",
    "Refusal",
    "RequestContext",
    "Settings",
    "action",
    "approvals",
    "create_app",
    "lifespan",
]

_MODULES = {
    "AgentAssistant": "assistant",
    "ApprovalRequest": "assistant",
    "Assistant": "assistant",
    "Database": "db",
    "DatabaseStore": "store",
    "Refusal": "assistant",
    "RequestContext": "context",
    "Settings": "settings",
    "action": "assistant",
    "approvals": "assistant",
    "create_app": "main",
    "lifespan": "main",
}

try:
    __version__ = version("chatkit-postgres")
except PackageNotFoundError:  # the source tree is on the path but not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
