"""One id for a request, in its response, its errors and every log line it causes."""

import re
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import Scope

HEADER = "X-Request-ID"
_SCOPE_KEY = "chatkit.request_id"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def give_request_id(scope: Scope) -> str:
    """A proxy's own id is kept if it is a harmless one."""
    given = Headers(scope=scope).get(HEADER, "")
    scope[_SCOPE_KEY] = given if _ACCEPTABLE.fullmatch(given) else uuid4().hex
    return request_id_of(scope)


def request_id_of(scope: Scope) -> str:
    return str(scope.get(_SCOPE_KEY, "unknown"))
