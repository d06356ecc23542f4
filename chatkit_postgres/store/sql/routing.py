"""Parts of statements with which a cluster runs them on the node of their owner alone."""

OWN_THREAD = "chat_sessions o ON o.user_id = :owner AND o.session_id = :session"
"""The thread, as the row from which an INSERT takes the owner. A parameter would be sent to all nodes."""


def given(parameter: str) -> str:
    """A UUID that may be null, to compare a column with. Of a comparison with null Citus does not know the node."""
    return f"COALESCE({parameter}, '00000000-0000-0000-0000-000000000000')"
