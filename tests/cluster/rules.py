"""What Citus refuses of a statement, as far as it can be read from its text.

Each rule has a counterexample, which breaks it and which a real cluster refuses: test_cluster.py. What no text shows,
such as an operator that is only stable, is found there alone.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from chatkit_postgres.db import Database
from chatkit_postgres.db.connecting import connector
from chatkit_postgres.db.tables import metadata

TABLES = sorted(table.name for table in metadata.sorted_tables if "user_id" in table.columns)
VOLATILE = r"\b(?:clock_timestamp|timeofday|random|gen_random_uuid|uuid_generate_v4|nextval)\s*\("
CLOCK = r"\b(?:now\(\)|current_timestamp|statement_timestamp\(\)|transaction_timestamp\(\))"
WRITES = r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(?:ONLY\s+)?chat_"


@dataclass(frozen=True)
class Rule:
    says: str
    breaks: Callable[[str], bool]
    counterexample: str
    """Its :owner and :session are 'alice' and a UUID on the cluster."""

    def __str__(self) -> str:
        return self.says


def plain(sql: str) -> str:
    """Without comments and the texts of literals."""
    return re.sub(r"'[^']*'", "''", re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL))


def _writes(sql: str) -> bool:
    return re.search(WRITES, sql) is not None


def _volatile_in_a_write(sql: str) -> bool:
    return _writes(sql) and re.search(VOLATILE, sql, re.IGNORECASE) is not None


def _clauses(sql: str, start: str, ends: str) -> list[str]:
    """What stands from each ``start`` to the next of ``ends`` at the same depth of parentheses."""
    found = []
    for match in re.finditer(start, sql):
        depth, position = 0, match.end()
        while position < len(sql):
            depth += {"(": 1, ")": -1}.get(sql[position], 0)
            if depth < 0 or (depth == 0 and re.match(ends, sql[position:])):
                break
            position += 1
        found.append(sql[match.end() : position])
    return found


def _clock_in_an_upsert(sql: str) -> bool:
    return any(re.search(CLOCK, clause) for clause in _clauses(sql, r"DO UPDATE\s+SET\b", r"\bRETURNING\b"))


def _interval_in_an_upsert(sql: str) -> bool:
    return any(re.search(r"\binterval\b", clause) for clause in _clauses(sql, r"DO UPDATE\s+SET\b", r"\bRETURNING\b"))


def _clock_within_an_expression(sql: str) -> bool:
    """In SET, the clock may only be a whole value: ``column = now()``."""
    changed = (
        re.sub(rf"=\s*{CLOCK}(?=\s*(?:,|$))", "", clause.strip())
        for clause in _clauses(sql, r"\bUPDATE chat_\w+(?: AS)?(?: \w+)?\s+SET\b", r"\b(?:FROM|WHERE|RETURNING)\b")
    )
    return any(re.search(CLOCK, clause) for clause in changed)


def _clock_in_returning(sql: str) -> bool:
    return any(re.search(CLOCK, clause) for clause in _clauses(sql, r"\bRETURNING\b", r"\bSELECT\b"))


def _subquery_in_values(sql: str) -> bool:
    return any("SELECT" in clause for clause in _clauses(sql, r"\bVALUES\s*\((?!\w+\s+AS)", r"(?!)"))


def _simple_case(sql: str) -> bool:
    return _writes(sql) and re.search(r"\bCASE\b(?!\s+WHEN\b)", sql) is not None


def _parameter_in_a_bare_upsert(sql: str) -> bool:
    """An INSERT ... SELECT that is the statement itself, and not one of its CTEs."""
    depth = 0
    for position, character in enumerate(sql):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and sql.startswith("INSERT INTO", position):
            rest = sql[position:]
            is_select = re.match(r"INSERT INTO[^(]*\([^)]*\)\s*SELECT\b", rest) is not None
            return is_select and any(":" in clause.replace("::", "") for clause in _clauses(rest, "DO UPDATE", r"(?!)"))
    return False


def _table_without_owner(sql: str) -> bool:
    """Each of our tables that is read or changed needs its own comparison with the owner. A comparison between two
    tables is not enough for a subquery that depends on an outer row."""
    names = "|".join(TABLES)
    used = len(re.findall(rf"\b(?:FROM|JOIN|UPDATE|USING)\s+(?:{names})\b", sql))
    return used > len(re.findall(r":owner\b", sql))


def _row_before_the_one_it_names(sql: str) -> bool:
    """Of rows that one statement inserts into two tables, one with a foreign key to the other."""
    inserted = {match[1]: match.start() for match in re.finditer(r"\bINSERT INTO\s+(\w+)", sql)}
    named = [(table.name, key.column.table.name) for table in metadata.sorted_tables for key in table.foreign_keys]
    return any(inserted.get(of, 0) < inserted[to] for of, to in named if of in inserted and to in inserted)


def takes_owner_from_a_parameter(sql: str) -> bool:
    """Of an INSERT ... SELECT that reads from a step before it."""
    for clause in _clauses(sql, r"\bSELECT :owner\b", r"(?!)"):
        outside = clause
        while (inner := re.sub(r"\([^()]*\)", "", outside)) != outside:
            outside = inner
        if re.search(r"\bFROM\b", outside):
            return True
    return False


async def run_counterexample(database: Database, rule: "Rule") -> None:
    """For a user who is there. Raises the database's own error."""
    numbered, values = rule.counterexample, list[object]()
    for name, kind, value in (("owner", "text", "alice"), ("session", "uuid", uuid.uuid4()), ("title", "text", "a")):
        if f":{name}" in numbered:
            values.append(value)
            numbered = numbered.replace(f":{name}", f"${len(values)}::{kind}")
    connection = await connector(database.url)()
    try:
        if not rule.counterexample.endswith("RETURNING u.created_at = now()"):
            await connection.execute("INSERT INTO chat_users (user_id) VALUES ('alice')")
        await connection.fetch(numbered, *values)
    finally:
        await connection.close()


EACH_TABLE = "each table is compared with the owner"
RULES = [
    Rule(
        "no volatile function in a statement that writes",
        _volatile_in_a_write,
        "UPDATE chat_sessions SET updated_at = clock_timestamp() WHERE user_id = :owner",
    ),
    Rule(
        "no clock in ON CONFLICT DO UPDATE SET: take excluded.column",
        _clock_in_an_upsert,
        "INSERT INTO chat_users AS u (user_id) VALUES (:owner) ON CONFLICT (user_id) DO UPDATE SET created_at = now()",
    ),
    Rule(
        "no interval in ON CONFLICT DO UPDATE SET: what it makes of a time depends on the zone",
        _interval_in_an_upsert,
        "INSERT INTO chat_users AS u (user_id) VALUES (:owner)"
        " ON CONFLICT (user_id) DO UPDATE SET created_at = u.created_at + interval '1 hour'",
    ),
    Rule(
        "no clock in COALESCE, CASE or arithmetic of SET: it may only be a whole value",
        _clock_within_an_expression,
        "UPDATE chat_users SET disabled_at = COALESCE(disabled_at, now()) WHERE user_id = :owner",
    ),
    Rule(
        "no clock in RETURNING",
        _clock_in_returning,
        "INSERT INTO chat_users AS u (user_id) VALUES (:owner) RETURNING u.created_at = now()",
    ),
    Rule(
        "no subquery in VALUES",
        _subquery_in_values,
        "INSERT INTO chat_users (user_id, metadata)"
        " VALUES (:owner, COALESCE((SELECT metadata FROM chat_users WHERE user_id = :owner), '{}'))"
        " ON CONFLICT (user_id) DO NOTHING",
    ),
    Rule(
        "no CASE with a value: CASE WHEN value = ...",
        _simple_case,
        "UPDATE chat_messages SET content = CASE content WHEN 'a' THEN 'b' ELSE content END WHERE user_id = :owner",
    ),
    Rule(
        "no parameter in ON CONFLICT DO UPDATE SET of a bare INSERT ... SELECT: make it a CTE",
        _parameter_in_a_bare_upsert,
        "INSERT INTO chat_sessions AS s (user_id, session_id, thread_id) SELECT :owner, :session, 't' WHERE true"
        " ON CONFLICT (user_id, session_id) DO UPDATE SET title = :title",
    ),
    Rule(
        "no jsonb_to_record in a statement that writes: jsonb_to_recordset",
        lambda sql: _writes(sql) and re.search(r"\bjsonb_to_record\(", sql) is not None,
        "UPDATE chat_sessions s SET title = r.title FROM jsonb_to_record('{}') AS r(title text)"
        " WHERE s.user_id = :owner",
    ),
    Rule(
        "a row is inserted after the one that its foreign key names: the key is checked after each CTE",
        _row_before_the_one_it_names,
        "WITH message AS ("
        "  INSERT INTO chat_messages"
        " (user_id, session_id, message_id, item_id, position, sender_type, item_type, item)"
        " SELECT :owner, :session, :session, 'm', 1, 'user', 'user_message', '{}' WHERE true"
        "), thread AS ("
        "  INSERT INTO chat_sessions (user_id, session_id, thread_id) SELECT :owner, :session, 't' WHERE true"
        "  RETURNING thread_id"
        ") SELECT thread_id FROM thread",
    ),
    Rule(
        EACH_TABLE,
        _table_without_owner,
        "WITH locked AS (SELECT session_id FROM chat_sessions WHERE session_id = :session FOR UPDATE)"
        " SELECT t.turn_id FROM chat_turns t JOIN locked USING (session_id) WHERE t.user_id = :owner",
    ),
]
