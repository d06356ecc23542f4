"""A named SQL statement with typed parameters.

The name is a comment at the head of the SQL, so ``pg_stat_activity``, the server's log and our tests all call a
statement by the same name.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

ParameterType = Literal[
    "text", "text[]", "uuid", "uuid[]", "bigint", "integer", "double precision", "boolean", "timestamptz"
]

# Not the second colon of a cast.
_PARAMETER = re.compile(r"(?<!:):([A-Za-z_]\w*)")


class Statement:
    """SQL whose parameters are written ``:name``.

    Each parameter is sent with its type, because PostgreSQL cannot infer the type of a NULL; JSON is sent as text and
    cast in the SQL. ``:owner`` is always text. Raises ValueError if the SQL and ``types`` name different parameters.
    """

    def __init__(self, name: str, sql: str, **types: ParameterType) -> None:
        self.name = name
        self.sql = sql
        self.types = types
        self.parameters = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
        """In the order of ``driver_sql``."""
        known: dict[str, ParameterType] = {"owner": "text", **types}
        if differences := set(types) ^ (set(self.parameters) - {"owner"}):
            raise ValueError(f"statement {name}: no type, or no such parameter: {', '.join(sorted(differences))}")
        numbers = {parameter: number for number, parameter in enumerate(self.parameters, 1)}
        numbered = _PARAMETER.sub(lambda found: f"${numbers[found[1]]}::{known[found[1]]}", sql)
        self.driver_sql = f"/* chatkit:{name} */ {numbered}"
        """For asyncpg, with a number and a type for each parameter."""

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """In the order of ``driver_sql``. Raises KeyError for a missing parameter."""
        return [parameters[name] for name in self.parameters]
