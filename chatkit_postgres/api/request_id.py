"""Assigns each request an id, which its response, its errors and its log lines contain."""

import re
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import Scope

HEADER = "X-Request-ID"
_SCOPE_KEY = "chatkit.request_id"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def give_request_id(scope: Scope) -> str:
    """Use the id of a proxy if it is well-formed, or else a new one."""
    given = Headers(scope=scope).get(HEADER, "")
    scope[_SCOPE_KEY] = given if _ACCEPTABLE.fullmatch(given) else uuid4().hex
    return request_id_of(scope)


def request_id_of(scope: Scope) -> str:
    return str(scope.get(_SCOPE_KEY, "unknown"))
