"""The harness has teeth: with the promise broken on purpose, it fails, and names what was broken.

``python -m tests.faults.mutants`` breaks a copy of the tree in each of these ways and runs the test that must notice.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT, clean_environment

COPIED = ("chatkit_postgres", "migrations", "tests", "alembic.ini", "pyproject.toml", "README.md", ".env.example")


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    replacements: tuple[tuple[str, str], ...]
    test: str
    named: str
    """What the failing test must print."""


MUTANTS = (
    Mutant(
        "the response drives the turn",
        "chatkit_postgres/api/chatkit.py",
        (
            (
                """            running = await self._run(operation, WriteSession(operation.type), context)
            return self._read(running, disconnect)
""",
                """            from starlette.responses import StreamingResponse
            context = context.with_session(WriteSession(operation.type))
            events = self._server.stream(operation, context, Draft())
            frames = (self._server.encode(event, context) async for event in events)
            return StreamingResponse(frames, media_type='text/event-stream')
""",
            ),
        ),
        "tests/faults/test_readers.py::test_a_reader_that_hangs_up_loses_nothing_it_has_read",
        "INVARIANT: a turn ends with its last reader",
    ),
    Mutant(
        "items are ordered by their timestamps",
        "chatkit_postgres/store/sql/items.py",
        (
            ("     ORDER BY position {order}\n", "     ORDER BY item ->> 'created_at' {order}\n"),
            (" ORDER BY m.position {order}\n", " ORDER BY CAST(m.item AS jsonb) ->> 'created_at' {order}\n"),
        ),
        "tests/faults/test_replicas.py::test_fifty_writers_on_one_thread_are_all_kept_and_one_is_answered",
        "INVARIANT: the API shows what is stored, in order",
    ),
    Mutant(
        "an answer is acknowledged before it is committed",
        "chatkit_postgres/store/item_writer.py",
        (
            (
                "        await self._write(thread_id, item, caller, replace=False)\n",
                """        import asyncio

        async def late() -> None:
            await asyncio.sleep(1 if item.type == "assistant_message" else 0)
            await self._write(thread_id, item, caller, replace=False)

        task = asyncio.create_task(late())
        if item.type != "assistant_message":
            await task
""",
            ),
        ),
        "tests/chat/test_turns.py::TestTelling::test_what_is_told_as_done_is_committed_already",
        "INVARIANT: what was acknowledged is stored",
    ),
    Mutant(
        "the owner is missing from the append",
        "chatkit_postgres/store/sql/items.py",
        (
            (
                "   WHERE user_id = :owner AND session_id = :session\n     AND CASE",
                "   WHERE session_id = :session\n     AND CASE",
            ),
        ),
        "tests/store/test_database_store.py::TestContract::test_the_same_item_id_lives_in_two_threads_and_with_two_users",
        "test_the_same_item_id_lives_in_two_threads_and_with_two_users",
    ),
    Mutant(
        "a checkpoint writes without the fence",
        "chatkit_postgres/store/sql/partials.py",
        (('{form.own("o")}\n   WHERE t.holds\n', '{form.own("o")}\n'),),
        "tests/store/test_partials.py::TestFence::test_a_turn_that_lost_its_thread_writes_nothing_and_learns_why",
        "INVARIANT: a checkpoint is fenced",
    ),
    Mutant(
        "a finished item leaves its log behind",
        "chatkit_postgres/store/sql/items.py",
        (
            (
                "  DELETE FROM chat_partial_log l USING session\n   WHERE l.user_id",
                "  DELETE FROM chat_partial_log l USING session\n   WHERE false AND l.user_id",
            ),
        ),
        "tests/store/test_partials.py::TestEnds::test_a_finished_item_replaces_its_log",
        "INVARIANT: a finished item has no log",
    ),
)


def is_noticed(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        copy.chmod(0o755)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        broken = copy / mutant.file
        source = broken.read_text()
        for before, after in mutant.replacements:
            assert before in source, f"{mutant.name}: the code has changed; this no longer applies: {before}"
            source = source.replace(before, after)
        broken.write_text(source)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--numprocesses=0", "--fault-runs=1", mutant.test],
            cwd=copy,
            env=clean_environment() | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    named = re.search(rf"^(E .*|FAILED .*){re.escape(mutant.named)}", done.stdout, re.MULTILINE)
    noticed = done.returncode == 1 and named is not None
    if not noticed:
        print(done.stdout[-3000:], done.stderr[-2000:])  # noqa: T201 - a script for people
    return noticed


def main() -> None:
    survivors = []
    for mutant in MUTANTS:
        noticed = is_noticed(mutant)
        print(f"{'noticed' if noticed else 'SURVIVED'}: {mutant.name}", flush=True)  # noqa: T201
        if not noticed:
            survivors.append(mutant.name)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
