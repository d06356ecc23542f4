"""A named SQL statement with typed parameters.

The name travels as a comment at the head of the SQL, so ``pg_stat_activity``, the server's log and our tests
all call a statement by the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Float, Integer, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.types import TypeEngine

_DIALECT = dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's

# Parameters are sent with their types, because PostgreSQL cannot guess the type of a NULL. Whatever is not
# listed is text; JSON is sent as text and cast in the statement.
_TYPES: dict[str, TypeEngine[Any]] = {
    "session": Uuid(),
    "message": Uuid(),
    "messages": ARRAY(Uuid()),
    "attachments": ARRAY(Text()),
    "declared_bytes": BigInteger(),
    "stored_bytes": BigInteger(),
    "max_unsent": BigInteger(),
    "upload_seconds": Float(),
    "late_seconds": Float(),
    "unsent_seconds": Float(),
    "after": Uuid(),
    "after_position": BigInteger(),
    "after_time": DateTime(timezone=True),
    "with_hidden": Boolean(),
    "turn": Uuid(),
    "page": BigInteger(),
    "days": Integer(),
    "max_bytes": BigInteger(),
    "max_current": BigInteger(),
    "max_output": Integer(),
    "retry_from": BigInteger(),
    "open_position": BigInteger(),
    "partials_count": BigInteger(),
    "stale_seconds": Float(),
    "opens": Boolean(),
    "only_disabled": Boolean(),
    "partial": Boolean(),
    "draft": Boolean(),
    "replace": Boolean(),
    "guarded": Boolean(),
    "set_title": Boolean(),
    "set_status": Boolean(),
    "set_domains": Boolean(),
    "set_metadata": Boolean(),
}


@dataclass(frozen=True)
class Statement:
    name: str
    sql: str
    driver_sql: str = field(init=False, repr=False, compare=False)
    """As asyncpg takes it, with a number and a type for each parameter."""
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        clause = text(f"/* chatkit:{self.name} */ {self.sql}")
        typed = [bindparam(name, type_=_TYPES.get(name, Text())) for name in clause.compile().params]
        compiled: Any = clause.bindparams(*typed).compile(dialect=_DIALECT)
        object.__setattr__(self, "driver_sql", compiled.string)
        object.__setattr__(self, "_names", tuple(compiled.positiontup or ()))

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """In the order of ``driver_sql``. Raises KeyError for one that is missing."""
        return [parameters[name] for name in self._names]
