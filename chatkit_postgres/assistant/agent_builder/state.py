"""Keeps the ``state`` of an exported workflow with the thread.

An export sets its state to the defaults at each call: ``state = {"name": None}``. The function is compiled again with
this one assignment changed, so that it begins with the state that the thread has; its file stays as it is.
"""

import ast
import copy
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from chatkit.types import ThreadMetadata

from chatkit_postgres.observability.logs import get_logger

STATE = "chatkit_postgres.workflow_state"
"""The key in a thread's metadata."""
MAX_CHARACTERS = 100_000
"""Of the newest state, and of those before earlier messages together."""
MAX_RETRIED = 20
"""Messages before which the state is known; a retry of an older one begins with the defaults."""
_NAME = "state"
_HOOK = "kept_state_of_this_thread"

Function = Callable[..., Any]

current_state: ContextVar["WorkflowState | None"] = ContextVar("workflow_state", default=None)

logger = get_logger(__name__)


class WorkflowState:
    """The state of one call of a workflow.

    The thread's metadata has the newest state, and for each of the last messages the state before it: a retry of a
    message begins with that one, and drops those of later messages.
    """

    def __init__(self, thread: ThreadMetadata, message_id: str, *, is_retry: bool) -> None:
        kept = thread.metadata.get(STATE)
        kept = kept if isinstance(kept, dict) else {}
        self._earlier: list[list[Any]] = kept.get("before") or []
        """Of each message: its id, and the state before it."""
        self._message_id = message_id
        self._begins_with: dict[str, Any] = {} if is_retry else kept.get("after") or {}
        for place, (earlier_id, before) in enumerate(self._earlier):
            if is_retry and earlier_id == message_id:
                self._earlier, self._begins_with = self._earlier[:place], before
                break
        self._state: dict[str, Any] | None = None

    def begin(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """The state that the thread has; of a variable that is new in the workflow, the default."""
        kept = {name: value for name, value in self._begins_with.items() if name in defaults}
        self._state = defaults | copy.deepcopy(kept)
        return self._state

    def save(self, thread: ThreadMetadata) -> None:
        """Put the state into the thread's metadata. One that is no JSON, or too large, is left as it was."""
        if self._state is None:
            return
        try:
            text = json.dumps(self._state)
        except (TypeError, ValueError, RecursionError) as error:
            text, problem = "", str(error)
        else:
            problem = f"{len(text)} characters" if len(text) > MAX_CHARACTERS else ""
        if problem:
            logger.error("workflow_state_not_kept", reason=problem, cure="keep a few values of JSON in `state`")
            return
        before = [*self._earlier, [self._message_id, self._begins_with]][-MAX_RETRIED:]
        while len(before) > 1 and len(json.dumps(before)) > MAX_CHARACTERS:
            del before[0]
        thread.metadata = {**thread.metadata, STATE: {"before": before, "after": json.loads(text)}}


def with_kept_state(function: Function) -> Function:
    """The function, which takes its state from ``current_state``. As it is if it has no state, or no source."""
    if (
        not isinstance(function, FunctionType)
        or function.__code__.co_freevars
        or inspect.unwrap(function) is not function
    ):
        return function
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return function
    tree = ast.parse(textwrap.dedent("".join(lines)))
    definition = tree.body[0]
    found = _assignment(definition)
    if not isinstance(definition, ast.AsyncFunctionDef) or found is None or found.value is None:
        return function
    found.value = ast.Call(ast.Name(_HOOK, ast.Load()), [found.value], [])
    # The hook is a variable of an enclosing function, so nothing is added to the module.
    maker = ast.parse(f"def make({_HOOK}):\n    return {definition.name}").body[0]
    if not isinstance(maker, ast.FunctionDef):
        return function
    maker.body.insert(0, definition)
    tree.body = [maker]
    # A traceback names the lines of the file.
    ast.increment_lineno(definition, first - 1)
    scope: dict[str, Any] = {}
    code = compile(ast.fix_missing_locations(tree), inspect.getsourcefile(function) or "<workflow>", "exec")
    exec(code, function.__globals__, scope)  # noqa: S102 - the team's own function
    made: Function = scope["make"](_begin)
    return made


def _begin(defaults: Any) -> Any:
    state = current_state.get()
    return state.begin(defaults) if state is not None and isinstance(defaults, dict) else defaults


def _assignment(definition: ast.AST) -> ast.Assign | ast.AnnAssign | None:
    """The first ``state = {...}`` in the function."""
    for node in ast.walk(definition):
        targets: Mapping[type, list[Any]] = {
            ast.Assign: getattr(node, "targets", []),
            ast.AnnAssign: [getattr(node, "target", None)],
        }
        named = [target.id for target in targets.get(type(node), []) if isinstance(target, ast.Name)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and _NAME in named and isinstance(node.value, ast.Dict):
            return node
    return None
