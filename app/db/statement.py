"""A named SQL statement with typed parameters.

The name travels as a comment at the head of the SQL, so ``pg_stat_activity``, the server's log and our tests
all call a statement by the same name.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, Integer, Text, TextClause, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

# Parameters are sent with their types, because PostgreSQL cannot guess the type of a NULL. Whatever is not
# listed is text; JSON is sent as text and cast in the statement.
_TYPES: dict[str, TypeEngine[Any]] = {
    "session": Uuid(),
    "message": Uuid(),
    "messages": ARRAY(Uuid()),
    "attachments": ARRAY(Text()),
    "declared_bytes": BigInteger(),
    "stored_bytes": BigInteger(),
    "most_unsent": BigInteger(),
    "upload_seconds": Float(),
    "late_seconds": Float(),
    "unsent_seconds": Float(),
    "after": Uuid(),
    "turn": Uuid(),
    "page": BigInteger(),
    "days": Integer(),
    "most_bytes": BigInteger(),
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
    clause: TextClause = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        clause = text(f"/* chatkit:{self.name} */ {self.sql}")
        typed = [bindparam(name, type_=_TYPES.get(name, Text())) for name in clause.compile().params]
        object.__setattr__(self, "clause", clause.bindparams(*typed))
