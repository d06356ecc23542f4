"""RequestContext: the user and the request, as the SDK passes it to the store and to assistants."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from uuid import uuid4

from chatkit.types import ThreadItem
from pydantic_core.core_schema import CoreSchema, is_instance_schema

from chatkit_postgres.ports import Files
from chatkit_postgres.store.approvals import PausedRun
from chatkit_postgres.store.caller import StoreContext
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.tool_calls import ToolCall


@dataclass(slots=True)
class HistoryNotes:
    """Facts about items of the history that the items do not hold, for the converter of an assistant."""

    cut_short: dict[str, str] = field(default_factory=dict)
    """Item id to the state of its turn, for each answer that did not reach its end."""
    without_images: set[str] = field(default_factory=set)
    """Ids of messages whose images a provider has refused."""
    last_agent: str | None = None
    """The name of the agent that spoke last in the thread."""
    calls: dict[str | None, list[ToolCall]] = field(default_factory=dict)
    """The calls of tools by the id of the item that follows them; None: they follow the last item."""
    paused_run: PausedRun | None = None
    """The run with which this turn goes on; None again once the assistant has taken it."""
    answered: ThreadItem | None = None
    """The client tool's call, or the questions, whose answer this turn continues from. They may be old: the history
    ends with them."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestContext(Mapping[str, Any], StoreContext):
    """The user, and what an assistant may know of the request.

    Code that was written for a context of another kind reads it as a mapping with the keys of ``KEYS``. ``request`` is
    the context itself, so that ``context["request"].headers`` and ``context.request.headers`` work, too.
    """

    user_id: str
    request_id: str = field(default_factory=lambda: uuid4().hex)
    locale: str | None = None
    public_url: str = ""
    """The URL at which the client reaches this server, without a slash at the end."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Claims of the user: those of the token that ``CHAT_USER_CLAIMS`` names, or those of the application's User."""
    is_staff: bool = False
    """Whether the user may read the conversations of others through the routes of the staff."""
    tokens_per_day: int | None = None
    """How many tokens the user may spend on a day (UTC); None: as many as wanted."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The request's headers that ``CHAT_CONTEXT_HEADERS`` lists; names in any case."""
    client_context: Mapping[str, Any] = field(default_factory=dict)
    """``userInfo`` and ``pageContext`` as the client sent them: information for the model, never a permission."""
    files: Files | None = None
    session: WriteSession | None = None
    outcome: Outcome = field(default_factory=Outcome)
    history_notes: HistoryNotes = field(default_factory=HistoryNotes)
    thread_bases: dict[str, Mapping[str, str | None]] = field(default_factory=dict)

    KEYS: ClassVar = ("user_id", "claims", "headers", "request_id", "locale", "request")

    @property
    def request(self) -> "RequestContext":
        return self

    def with_session(self, session: WriteSession) -> "RequestContext":
        """The same request for a new turn, with an outcome and notes of its own."""
        return replace(self, session=session, outcome=Outcome(), history_notes=HistoryNotes(), thread_bases={})

    def __getitem__(self, key: str) -> Any:
        if key not in self.KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.KEYS)

    def __len__(self) -> int:
        return len(self.KEYS)

    # Two requests are never equal, even with the same fields.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        """So that a team can extend ``AgentContext[RequestContext]``: pydantic takes the object as it is."""
        return is_instance_schema(cls)
