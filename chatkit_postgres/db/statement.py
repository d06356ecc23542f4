"""A named SQL statement with typed parameters.

The name is a comment at the head of the SQL, so ``pg_stat_activity``, the server's log and our tests all call a
statement by the same name.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

ParameterType = Literal[
    "text", "text[]", "uuid", "uuid[]", "bigint", "integer", "double precision", "boolean", "timestamptz"
]

# Not in a cast, not after a word character (HH24:MI), not after a backslash.
_PARAMETER = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)")


class Statement:
    r"""SQL whose parameters are written ``:name``; ``\:`` is a colon before a letter.

    Each parameter is sent with its type, because PostgreSQL cannot infer the type of a NULL; JSON is sent as text and
    cast in the SQL. ``:owner`` is always text. Raises ValueError for a parameter without a type, a type without a
    parameter, and an unknown type.
    """

    def __init__(self, name: str, sql: str, **types: ParameterType) -> None:
        self.name = name
        self.sql = sql
        self.types = types
        self.parameters = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
        """In the order of ``driver_sql``."""
        known: dict[str, ParameterType] = {"owner": "text", **types}
        self._check(set(self.parameters) - {"owner"})
        numbers = {parameter: number for number, parameter in enumerate(self.parameters, 1)}
        numbered = _PARAMETER.sub(lambda found: f"${numbers[found[1]]}::{known[found[1]]}", sql)
        self.driver_sql = f"/* chatkit:{name} */ {numbered}".replace("\\:", ":")
        """For asyncpg, with a number and a type for each parameter."""

    def _check(self, used: set[str]) -> None:
        for parameter in sorted(used - set(self.types)):
            cure = f'Statement("{self.name}", sql, {parameter}="text")'
            raise ValueError(f"statement {self.name}: the parameter :{parameter} has no type; write {cure}")
        for parameter in sorted(set(self.types) - used):
            raise ValueError(f"statement {self.name}: there is a type for {parameter!r}, which is not in the SQL")
        for parameter, kind in self.types.items():
            if kind not in get_args(ParameterType):
                known = ", ".join(get_args(ParameterType))
                raise ValueError(f"statement {self.name}: {kind!r} of :{parameter} is not one of {known}")

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """In the order of ``driver_sql``. Raises KeyError for a missing parameter."""
        return [parameters[name] for name in self.parameters]
