"""Answers items that wait for the user or the page: outputs of client tools, and structured input."""

from chatkit.types import (
    ClientToolCallItem,
    StructuredInputAnswer,
    StructuredInputItem,
    StructuredInputMultipleChoice,
    StructuredInputSubmission,
    ThreadAddClientToolOutputParams,
    ThreadAddStructuredInputParams,
    ThreadItem,
)

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound, NothingPending, Unprocessable
from chatkit_postgres.store import DatabaseStore


async def completed_call(
    store: DatabaseStore, params: ThreadAddClientToolOutputParams, context: RequestContext
) -> ClientToolCallItem:
    """The thread's last call with its output. Raises NothingPending.

    Also a call that has its output already: whether an output may be given again, the store decides.
    """
    call = await store.items.load_last_call(params.thread_id, context)
    if call is None:
        raise NothingPending
    return call.model_copy(update={"output": params.result, "status": "completed"})


async def answered_questions(
    store: DatabaseStore, params: ThreadAddStructuredInputParams, context: RequestContext
) -> StructuredInputItem:
    """The questions with their answers. Whether they may be answered again, the store decides. Raises NotFound or
    Unprocessable."""
    item = await store.load_item(params.thread_id, params.item_id, context)
    if not isinstance(item, StructuredInputItem):
        raise Unprocessable("params.item_id: this item asks no questions.")
    return _with_answers(item, params.input)


def _with_answers(item: StructuredInputItem, submission: StructuredInputSubmission) -> StructuredInputItem:
    """A question without an answer counts as skipped, a single choice takes the first value; both as in the SDK."""
    answered = item.model_copy(deep=True)
    for question in answered.inputs:
        given = submission.answers.get(question.id)
        if submission.status == "skipped" or given is None or given.skipped or not given.values:
            question.answer = StructuredInputAnswer(skipped=True)
            continue
        takes_one = isinstance(question, StructuredInputMultipleChoice) and not question.multiple
        question.answer = StructuredInputAnswer(values=given.values[:1] if takes_one else given.values)
    answered.status = submission.status
    return answered


async def is_stored(store: DatabaseStore, item: ThreadItem, context: RequestContext) -> bool:
    try:
        await store.load_item(item.thread_id, item.id, context)
    except NotFound:
        return False
    return True
