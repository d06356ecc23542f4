"""Sets TCP keep-alive and time-out on a connection, so that the operating system notices a lost one."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# By libpq's names. The last is Linux's, in milliseconds: the limit for unacknowledged data.
_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


def keep_alive(connection: Any, options: Mapping[str, int]) -> None:
    """Does nothing for options that the system lacks, and for connections that are not TCP."""
    own = None
    with suppress(AttributeError):
        own = connection._transport.get_extra_info("socket")  # noqa: SLF001 - see docs/decisions/0006
    if own is None or own.family not in {socket.AF_INET, socket.AF_INET6} or not options:
        return
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _SOCKET_OPTIONS.items():
        if name in options and hasattr(socket, option):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), options[name])
