"""Ids of tool calls are ours, whatever the model calls them.

Some servers give every call of every answer the id ``call_0``: the Agents SDK then takes a second call for the first.
Others use more than the 64 characters that OpenAI takes. Ours have nine letters and digits, as Mistral wants them.
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


def call_id_of(item_id: str) -> str:
    """Of a client tool's call: the same whenever its item is sent."""
    number = uuid5(NAMESPACE_OID, item_id.encode(errors="replace").decode()).int
    digits = []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(digits)


class CallIds:
    """The provider's id of each of our ids, for a provider that keeps the conversation itself."""

    def __init__(self) -> None:
        self._theirs: OrderedDict[str, str] = OrderedDict()

    def issue(self, theirs: str) -> str:
        ours = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        self._theirs[ours] = theirs
        if len(self._theirs) > MAX_REMEMBERED:
            self._theirs.popitem(last=False)
        return ours

    def restored(self, items: Sequence[Any]) -> list[Any]:
        """Input that goes on from a conversation at the provider's: an output names its call as the provider did."""
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
        """The provider's id to ours, of each call that has it."""
        self._renamed: set[str] = set()
        self._seen: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def rename_in(self, event: Any) -> None:
        # The same call is announced, done, and part of the whole response.
        match event.type:
            case "response.output_item.added" | "response.output_item.done":
                self.rename([event.item], self._seen[event.type])
            case "response.completed" | "response.incomplete" | "response.failed":
                self.rename(event.response.output, Counter())
            case _:
                pass

    def _is_theirs(self, call: ResponseFunctionToolCall) -> bool:
        """Whether a call has the provider's id and may be renamed. A program at the provider's needs its own ids."""
        return call.call_id not in self._renamed and getattr(call.caller, "type", None) != "program"

    def rename(self, items: Iterable[Any], seen: Counter[str]) -> None:
        for call in items:
            if isinstance(call, ResponseFunctionToolCall) and self._is_theirs(call):
                theirs = call.call_id or ""
                ours = self._ours[theirs]
                if seen[theirs] == len(ours):
                    ours.append(self._ids.issue(theirs))
                    self._renamed.add(ours[-1])
                call.call_id = ours[seen[theirs]]
                seen[theirs] += 1


def _type_of(item: Any) -> Any:
    return item.get("type") if isinstance(item, Mapping) else None
