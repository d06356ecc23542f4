"""RequestContext: the user, the request and the turn. The store and the SDK pass it on."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID, uuid4

from chatkit.types import Attachment, ThreadItem, ThreadItemUpdate
from pydantic_core.core_schema import CoreSchema, is_instance_schema

CREATE = "threads.create"
"""The operation that makes the thread it runs in."""


@dataclass(slots=True)
class RetryWindow:
    """The old answer that a retry replaces: ``retry_from < position < open_position``."""

    retry_from: int
    open_position: int


class ItemAccumulator(ABC):
    """An item that is still being streamed."""

    is_saved: bool
    """Whether what has come so far is in the database."""

    @abstractmethod
    def apply(self, update: ThreadItemUpdate) -> None: ...

    @abstractmethod
    def snapshot(self) -> ThreadItem | None:
        """The item as far as it has come; None while there is nothing to keep."""
        ...


@dataclass(slots=True)
class Turn:
    """Everything one streaming operation does. Its id is the fencing token of its writes."""

    operation: str
    id: UUID = field(default_factory=uuid4)
    idempotency_key: str | None = None
    request_hash: str | None = None
    """SHA-256 of the request, to tell a repetition from another request under the same key."""
    thread_id: str | None = None
    """The thread whose fence this turn took; None until its first write opened it."""
    retry: RetryWindow | None = None
    """Set while a retry has not yet committed its first final item."""
    awaits_verdict: bool = False
    """Whether an output guardrail will judge the messages of its answer: until then they are drafts."""
    has_drafts: bool = False
    """Whether messages were saved that are still to be judged."""
    sender_name: str | None = None
    """The name of the agent that is speaking, for the reader of the table."""
    error_code: str | None = None
    """Why it failed, once it has."""
    usage: dict[str, int] | None = None
    """Tokens, as the provider counted them."""
    answered: ThreadItem | None = None
    """The questions, or the client tool's call, whose answer this turn goes on from."""
    found_fence_of: UUID | None = None
    """The turn that held the thread when this one took it over."""
    unfinished: dict[str, ItemAccumulator] = field(default_factory=dict)
    """Item id to each item that was announced and is not done."""
    changing: dict[str, ItemAccumulator] = field(default_factory=dict)
    """Item id to each item of an earlier turn that this one goes on with."""
    cut_short: dict[str, str] = field(default_factory=dict)
    """Answers in the history that did not come to their end: item id to how the turn ended."""
    without_pictures: set[str] = field(default_factory=set)
    """Ids of messages in the history whose pictures a provider has refused."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while an item of the answer is saved or removed, so that a checkpoint cannot bring it back."""
    committed: dict[str, bytes] = field(default_factory=dict)
    """Item id to digest of every final item this turn has committed: a repeat needs no statement."""
    attachments: dict[str, Attachment] = field(default_factory=dict)
    """What the message that this turn answers brings, by id, as it was when the request came."""
    made_attachments: set[str] = field(default_factory=set)
    """Ids of the images that were made for its answer."""
    known_item_ids: set[str] = field(default_factory=set)
    """Item ids that were issued by, or loaded from, the store during this turn: ours, not the model's."""

    @property
    def is_open(self) -> bool:
        return self.thread_id is not None


@dataclass(frozen=True, slots=True)
class ImageData:
    """An image as bytes: JPEG, PNG, GIF or WebP."""

    data: bytes
    content_type: str


class Files(ABC):
    """The attachments of the user who asks, with their rights and no others."""

    text_characters: int
    """What of attached texts a model should see in one call, at most."""
    max_images: int
    """And how many images."""

    @abstractmethod
    async def text(self, attachment_id: str, max_characters: int) -> str | None:
        """The text of an attached text, Markdown, CSV, JSON or PDF file, cut; None if it is none of them, or gone."""
        ...

    @abstractmethod
    async def image(self, attachment_id: str) -> ImageData | None:
        """An attached image, made small enough for a model; None if it is none, or gone."""
        ...

    @abstractmethod
    async def store_image(self, data: bytes, name: str) -> str:
        """Store an image that was made for the user. Returns what stands for its address in an item."""
        ...

    @abstractmethod
    async def delete_image(self, reference: str) -> None:
        """Delete an image that ``store_image`` stored for this answer; nothing for any other."""
        ...


@dataclass(slots=True, eq=False)
class RequestContext(Mapping[str, Any]):
    """Who asks, and what an assistant may know of the request.

    Code that was written for a context of another kind reads it as a mapping with the keys of ``KEYS``. ``request`` is
    the context itself, so that ``context["request"].headers`` and ``context.request.headers`` work, too.
    """

    user_id: str
    request_id: str = field(default_factory=lambda: uuid4().hex)
    locale: str | None = None
    public_url: str = ""
    """Where the one who asks reaches this server, without a slash at the end."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Claims of the user: those of the token that ``CHAT_USER_CLAIMS`` names, or those of the application's User."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The request's headers that ``CHAT_CONTEXT_HEADERS`` lists; names in any case."""
    client_context: Mapping[str, Any] = field(default_factory=dict)
    """``userInfo`` and ``pageContext`` of the request: the client's word, which decides nothing."""
    files: Files | None = None
    turn: Turn | None = None
    thread_bases: dict[str, Mapping[str, str | None]] = field(default_factory=dict)
    """Thread id to its columns as this request loaded or last saved them: what differs is what it changed."""

    KEYS: ClassVar = ("user_id", "claims", "headers", "request_id", "locale", "request")

    @property
    def request(self) -> "RequestContext":
        return self

    def __getitem__(self, key: str) -> Any:
        if key not in self.KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.KEYS)

    def __len__(self) -> int:
        return len(self.KEYS)

    # Two requests are never the same one, whatever they hold.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        """So that a team can extend ``AgentContext[RequestContext]``: pydantic takes the object as it is."""
        return is_instance_schema(cls)
