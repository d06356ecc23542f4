"""WriteSession: the state that all writes of one turn share."""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from chatkit.types import (
    AssistantMessageItem,
    Attachment,
    HiddenContextItem,
    SDKHiddenContextItem,
    ThreadItem,
    UserMessageItem,
    WorkflowItem,
)

from chatkit_postgres.store.ids import session_uuid

CREATE = "threads.create"
"""The operation that creates the thread it runs in."""


@dataclass(frozen=True, slots=True)
class RetryWindow:
    """The old answer that a retry replaces: ``retry_from < position < open_position``."""

    retry_from: int
    open_position: int


@dataclass(slots=True, eq=False)
class WriteSession:
    """One turn as the store sees it. Its ``turn_id`` is the fencing token of all its writes."""

    operation: str
    """The protocol's name of the request, such as ``threads.create``."""
    turn_id: UUID = field(default_factory=uuid4)
    idempotency_key: str | None = None
    request_hash: str | None = None
    """SHA-256 of the request, to tell a repetition from another request under the same key."""
    thread_id: str | None = None
    """The thread whose fence this turn took; None until its first write opened it."""
    previous_turn_id: UUID | None = None
    """The turn that held the fence when this one took it."""
    tokens_held: int = 0
    """Tokens of the user that are held for this turn."""
    is_superseded: bool = False
    """Whether a write was refused because a newer turn holds the fence."""
    retry: RetryWindow | None = None
    """Set while a retry has not yet committed its first final item."""
    sender_name: str | None = None
    """The name of the agent that is answering, stored with its items."""
    awaits_verdict: bool = False
    """Whether an output guardrail will judge the answer: until then its messages are drafts."""
    has_drafts: bool = False
    """Whether messages were saved that are still to be judged."""
    closed_calls: str | None = None
    """JSON: the calls of each earlier run that this turn has ended, answered or not."""
    has_hidden_work: bool = False
    """Whether a workflow of a retry, or calls of tools, are hidden until there is more of the answer."""
    committed: dict[str, bytes] = field(default_factory=dict)
    """Item id to digest of every final item this turn has committed: a repeated save needs no statement."""
    known_item_ids: set[str] = field(default_factory=set)
    """Item ids that the store issued or loaded during this turn; any other id is the model's."""
    user_message_ids: set[str] = field(default_factory=set)
    """Those of them under which the user has written: an assistant's item under one is another item."""
    attachments: dict[str, Attachment] = field(default_factory=dict)
    """The attachments of the user's message, by id, as they were when the request arrived."""
    made_attachments: set[str] = field(default_factory=set)
    """Ids of the images that were generated for the answer."""

    @property
    def is_open(self) -> bool:
        return self.thread_id is not None

    @property
    def session_id(self) -> UUID:
        """The id of the thread's row. Raises RuntimeError for a turn that is not open."""
        if self.thread_id is None:
            raise RuntimeError("the turn is not open")
        return session_uuid(self.thread_id)

    def know(self, *items: ThreadItem) -> None:
        """Record items that this turn has loaded or written."""
        for item in items:
            self.known_item_ids.add(item.id)
            if isinstance(item, UserMessageItem):
                self.user_message_ids.add(item.id)

    def hides(self, item: ThreadItem, *, partial: bool) -> bool:
        """Whether only this turn may see the item: in a retry, unfinished and hidden items, workflows, which are no
        answer yet, and all items once a guardrail will judge them; otherwise the messages that an output guardrail has
        not judged."""
        if self.retry is not None:
            is_hidden = isinstance(item, HiddenContextItem | SDKHiddenContextItem | WorkflowItem)
            return partial or is_hidden or self.awaits_verdict or self.has_drafts
        return self.awaits_verdict and isinstance(item, AssistantMessageItem)
