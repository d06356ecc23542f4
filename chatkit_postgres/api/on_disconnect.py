"""Chat-On-Disconnect: what a turn does when its client leaves."""

from fastapi import Request

from chatkit_postgres.chat.turns.running_turn import OnDisconnect
from chatkit_postgres.errors import BadRequest

HEADER = "Chat-On-Disconnect"


def on_disconnect(request: Request) -> OnDisconnect | None:
    """None without the header: then ``CHAT_ON_DISCONNECT`` decides. Raises BadRequest for another value."""
    match request.headers.getlist(HEADER):
        case []:
            return None
        case ["finish"]:
            return "finish"
        case ["stop"]:
            return "stop"
        case _:
            raise BadRequest(f"{HEADER}: must be finish or stop.")
