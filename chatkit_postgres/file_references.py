"""References to attachments in stored items."""

SCHEME = "attachment://"
"""``attachment://atc_…`` is the URL of an attachment in stored items; a signed URL replaces it when an item is sent."""


def id_in(url: str) -> str | None:
    """The id in a reference to an attachment; None for any other URL."""
    return url.removeprefix(SCHEME) if url.startswith(SCHEME) else None


def reference_to(attachment_id: str) -> str:
    return f"{SCHEME}{attachment_id}"
