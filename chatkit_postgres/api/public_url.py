"""Determines the base URL under which a client reaches this server, for signed URLs."""

import re
from collections.abc import Callable

from fastapi import Request

from chatkit_postgres.errors import BadRequest

PublicUrl = Callable[[Request], str]
"""Scheme, host and path, without a slash at the end."""

LAST_PORT = 65535
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:(?P<port>[0-9]{1,5}))?")


def public_url(configured: str | None) -> PublicUrl:
    """The configured URL, or the one in each request's headers: URLs made of that are sent to the same client only."""

    def of(request: Request) -> str:
        if configured is not None:
            return configured
        host = request.headers.get("host", "localhost")
        named = _HOST.fullmatch(host)
        if named is None or int(named["port"] or 0) > LAST_PORT:
            raise BadRequest("Host: not a valid host name.")
        return f"{request.url.scheme}://{host}{request.scope.get('root_path', '')}"

    return of
