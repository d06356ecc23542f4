"""Checks of the `check` command: assistant, keys, database, storage, model."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.observability.logs import reason_of
from chatkit_postgres.settings import ConfigurationError, Deployment

if TYPE_CHECKING:
    from sqlalchemy import URL

MODEL_SECONDS = 30
"""The timeout of the test request. A local server may have to load its model first."""

Result = tuple[str, bool, str]
"""Name of the check, whether it passed, and a sentence about it."""


def results_of(deployment: Deployment) -> list[Result]:
    keys = () if deployment.is_hosted else (_check_keys,)
    checks = (_check_assistant, *keys, _check_database, _check_storage, _check_model)
    return [check(deployment) for check in checks]


def _check_keys(deployment: Deployment) -> Result:
    settings = deployment.settings
    if deployment.is_dev or not settings.uses_key_set:
        return "keys", True, "a shared secret"

    async def problem() -> str | None:
        keys = settings.verification_keys(settings.token_rules(is_dev=False), settings.data_dir, is_dev=False)
        return None if await keys.refresh() else getattr(keys, "problem", None) or "no usable key set"

    source, found = settings.jwks_url or settings.jwks_file, asyncio.run(problem())
    return "keys", found is None, f"{source}: {found}" if found is not None else f"{source} has verification keys"


def _check_assistant(deployment: Deployment) -> Result:
    settings = deployment.settings
    from chatkit_postgres.assistant import AgentAssistant, AssistantError, load_assistant
    from chatkit_postgres.assistant.model_servers.proxies import ProxyRefused
    from chatkit_postgres.assistant.tools.mcp_file import McpError
    from chatkit_postgres.db import Database
    from chatkit_postgres.store import DatabaseStore

    # Loading the assistant does not connect to the database.
    store = DatabaseStore(Database("postgresql:///"))
    try:
        assistant = load_assistant(settings.assistant, settings.model_options(), store)
    except (AssistantError, McpError, ProxyRefused) as error:
        return "assistant", False, str(error)
    if isinstance(assistant, AgentAssistant) and (missing := assistant.missing_tools(settings.allowed_tools)):
        return "assistant", False, f"CHAT_ALLOWED_TOOLS: {settings.assistant} has no tool {', '.join(missing)}"
    return "assistant", True, settings.assistant


def _check_database(deployment: Deployment) -> Result:
    settings = deployment.settings
    from chatkit_postgres.db import Database
    from chatkit_postgres.db.fitness import misfits_of, obstacles_to_migration, read_server
    from chatkit_postgres.db.migrations import current_revision, head_revision, is_served_by_this_code

    async def probe(url: "URL") -> tuple[bool, str]:
        database = Database(url, pooled=False)
        server = await read_server(database)
        if misfits := misfits_of(server):
            return False, " ".join(misfits)
        current, head = await current_revision(database), head_revision()
        if current is None and settings.is_embedded is False and (obstacles := obstacles_to_migration(server)):
            return False, " ".join(obstacles)
        if server["is_read_only"]:
            return False, f"PostgreSQL {server['version']} is read-only: a standby, or a primary that was replaced"
        if not server["is_durable"]:
            return (
                False,
                f"PostgreSQL {server['version']} has synchronous_commit off: a crash loses acknowledged messages",
            )
        if not is_served_by_this_code(current) and not settings.is_embedded:
            return (
                False,
                f"PostgreSQL {server['version']} is at revision {current}, not at {head}: run chatkit-postgres migrate",
            )
        is_spread, spread = await _distribution(url)
        where = f", embedded in {settings.data_dir.resolve()}," if settings.is_embedded else spread
        at = current or "none yet; serve migrates it"
        return is_spread, f"PostgreSQL {server['version']}{where} at revision {at}" if is_spread else spread

    try:
        with explained(), any_database(settings) as url:
            return ("database", *asyncio.run(probe(url)))
    except ConfigurationError as error:
        return "database", False, str(error)


async def _distribution(url: "URL") -> tuple[bool, str]:
    from chatkit_postgres.db.distribution import find_cluster

    cluster = await find_cluster(url)
    if cluster is None:
        return True, ""
    if not cluster.is_distributed:
        return True, ", in a Citus cluster, not distributed yet,"
    if cluster.missing:
        return False, f"not distributed: {', '.join(cluster.missing)}: run chatkit-postgres distribute"
    return True, f", distributed over {len(cluster.nodes)} nodes by Citus {cluster.version},"


def _check_storage(deployment: Deployment) -> Result:
    settings = deployment.settings
    from chatkit_postgres.attachments.storage import NoStorage
    from chatkit_postgres.errors import ChatError, StorageUnavailable

    location = settings.storage_url or settings.data_dir / "attachments"
    try:
        storage = settings.file_storage(settings.data_dir)
        if isinstance(storage, NoStorage):
            return "storage", True, "none: the extra `files` is not installed, and CHAT_ATTACHMENT_TYPES is none"
        asyncio.run(storage.probe())
    except ConfigurationError as error:
        return "storage", False, str(error)
    except StorageUnavailable as error:
        return "storage", False, f"{location}: writing and reading a test file failed: {error.reason}"
    except ChatError as error:
        return "storage", False, f"{location}: {error.message}"
    return "storage", True, f"{location}"


def _check_model(deployment: Deployment) -> Result:
    from agents import AgentsException
    from openai import OpenAIError

    from chatkit_postgres.assistant.model_servers.proxies import ProxyRefused
    from chatkit_postgres.assistant.models import model_provider, one_word

    options = deployment.settings.model_options()
    if options.is_demo:
        return "model", True, "the built-in demo model, which needs no server"
    server = options.base_url or "OpenAI"

    async def ask() -> str:
        models = model_provider(replace(options, retries=0))
        try:
            async with asyncio.timeout(MODEL_SECONDS):
                return await one_word(models)
        finally:
            await models.aclose()

    try:
        return "model", True, f"{server} answers: {asyncio.run(ask())!r}"
    except ProxyRefused as error:
        return "model", False, str(error)
    except TimeoutError:
        return "model", False, f"{server} did not respond within {MODEL_SECONDS} seconds"
    except (OpenAIError, AgentsException) as error:
        return "model", False, f"{server}: {_reason(error)}"


def _reason(error: Exception) -> str:
    """The provider's own message, which can quote nothing but our test question."""
    status, code = getattr(error, "status_code", None), getattr(error, "code", None)
    codes = " ".join(str(part) for part in (f"HTTP {status}" if status else "", code or "") if part)
    cause = reason_of(error)
    return f"{codes or type(error).__name__}: {str(error)[:300]}" + (f" ({cause})" if not status else "")
