"""Replaces the ids of tool calls with unique ones.

Some servers give every call of every answer the id ``call_0``, and the Agents SDK then takes a second call for the
first. Others use more than the 64 characters that OpenAI accepts. Our ids have nine letters and digits, as Mistral
requires.
"""

import secrets
import string
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from openai.types.responses import ResponseFunctionToolCall

ALPHABET = string.ascii_letters + string.digits
LENGTH = 9
MAX_REMEMBERED = 10_000


def call_id_of(stored_id: str) -> str:
    """An id made of the id of what is stored, the same in every request."""
    number = uuid5(NAMESPACE_OID, stored_id.encode(errors="replace").decode()).int
    digits = []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(digits)


class CallIds:
    """Maps our ids to the provider's, for a provider that stores the conversation itself."""

    def __init__(self) -> None:
        self._theirs: OrderedDict[str, str] = OrderedDict()

    def issue(self, theirs: str) -> str:
        ours = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        self._theirs[ours] = theirs
        if len(self._theirs) > MAX_REMEMBERED:
            self._theirs.popitem(last=False)
        return ours

    def restored(self, items: Sequence[Any]) -> list[Any]:
        """Restore the provider's ids in outputs whose calls are in a conversation that the provider stores."""
        called = {item.get("call_id") for item in items if _type_of(item) == "function_call"}
        return [
            {**item, "call_id": self._theirs[item["call_id"]]}
            if _type_of(item) == "function_call_output"
            and item["call_id"] in self._theirs
            and item["call_id"] not in called
            else item
            for item in items
        ]


class CallsOfResponse:
    """Renames the calls of one response, in all events that show them."""

    def __init__(self, ids: CallIds) -> None:
        self._ids = ids
        self._ours: defaultdict[str, list[str]] = defaultdict(list)
        """Our ids by the provider's id, one for each call that has this id."""
        # Not a set, which takes 200 bytes while it is empty.
        self._renamed: frozenset[str] = frozenset()
        self._seen: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def rename_in(self, event: Any) -> None:
        # The same call occurs in the added event, in the done event, and in the whole response.
        match event.type:
            case "response.output_item.added" | "response.output_item.done":
                self.rename([event.item], self._seen[event.type])
            case "response.completed" | "response.incomplete" | "response.failed":
                self.rename(event.response.output, Counter())
            case _:
                pass

    def _is_theirs(self, call: ResponseFunctionToolCall) -> bool:
        """Whether a call has the provider's id and may be renamed. A program at the provider needs its own ids."""
        return call.call_id not in self._renamed and getattr(call.caller, "type", None) != "program"

    def rename(self, items: Iterable[Any], seen: Counter[str]) -> None:
        for call in items:
            if isinstance(call, ResponseFunctionToolCall) and self._is_theirs(call):
                theirs = call.call_id or ""
                ours = self._ours[theirs]
                if seen[theirs] == len(ours):
                    ours.append(self._ids.issue(theirs))
                    self._renamed |= {ours[-1]}
                call.call_id = ours[seen[theirs]]
                seen[theirs] += 1


def _type_of(item: Any) -> Any:
    return item.get("type") if isinstance(item, Mapping) else None
