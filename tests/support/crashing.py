"""Kills the server at one step of an upload or a removal; the variable ``CRASH`` names the step.

Everything else is as in production: the step is recognised by the calls of the object storage and the statements of the
database.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.db import Database, Statement
from tests.support import assistants


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# The server dies after this statement, or after this call of the object storage.
STATEMENTS = {
    "ready": "finish_upload",
    "marked": "delete_attachment",
    "sent": "begin_thread_with_attachments",
}
PUTS = {"original stored": 1, "preview stored": 2}


def build() -> Any:
    crash = os.environ.get("CRASH", "")
    if crash:
        _watch(crash)
    return assistants.build()


def _watch(crash: str) -> None:
    run, put, remove_all = Database.run, ObjectStorage.put, ObjectStorage.remove_all
    puts = 0

    async def watched_run(database: Database, owner: str, statement: Statement, **parameters: Any) -> Any:
        if crash == "row to go" and statement.name == "remove_attachment":
            _die()
        done = await run(database, owner, statement, **parameters)
        if STATEMENTS.get(crash) == statement.name:
            _die()
        return done

    async def watched_put(storage: ObjectStorage, *given: Any, **named: Any) -> None:
        nonlocal puts
        if crash == "announced":
            _die()
        await put(storage, *given, **named)
        puts += 1
        if PUTS.get(crash) == puts:
            _die()

    async def watched_removal(storage: ObjectStorage, key: str) -> int:
        removed = await remove_all(storage, key)
        if crash == "bytes removed":
            _die()
        return removed

    _replace(Database, "run", watched_run)
    _replace(ObjectStorage, "put", watched_put)
    _replace(ObjectStorage, "remove_all", watched_removal)


def _replace(kind: type, name: str, watched: Callable[..., Awaitable[Any]]) -> None:
    setattr(kind, name, watched)
