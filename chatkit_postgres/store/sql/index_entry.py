"""The SQL of the entry in the search index, for statements that write a row of ``chat_messages`` or ``chat_sessions``.

An entry is the ``tsvector`` of the words of an item or a title, with two lexemes of their owner: one alone, and one
with the week of the row. So a query reads few entries of a common word, those of the owner's newest weeks first.
"""

WEEK_SECONDS = 7 * 24 * 60 * 60


def indexed(words: str, mark: str, created_at: str) -> str:
    """The entry of a row, from the SQL of its words, of its owner's lexeme, and of its time. Without words it is empty,
    and the row is never found.

    All functions in it are immutable, as a cluster demands of an upsert.
    """
    epoch = "timestamptz '1970-01-01 00:00:00+00'"
    week = f"floor(extract(epoch FROM {created_at} - {epoch}) / {WEEK_SECONDS})::bigint::text"
    return f"""CASE WHEN {words} = '' THEN ''::tsvector
              ELSE {words} || array_to_tsvector(ARRAY[{mark}, {mark} || '#' || {week}]) END"""


INDEXED_PARAMETER = indexed("CAST(:words AS tsvector)", ":owner_mark", "now()")
"""The entry of a row that is inserted now."""
REINDEXED_PARAMETER = indexed("CAST(:words AS tsvector)", ":owner_mark", "m.created_at")
"""The entry of the row ``m``, whose text changes."""
