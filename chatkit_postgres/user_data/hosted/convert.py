"""Converts hosted threads and items to records of our import, with their ids."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    ClientToolCallItem,
    CustomTask,
    FileAttachment,
    FileSource,
    InferenceOptions,
    Task,
    TaskItem,
    ThoughtTask,
    ThreadItem,
    URLSource,
    UserMessageItem,
    UserMessageTextContent,
    WidgetItem,
    Workflow,
    WorkflowItem,
)
from pydantic import ValidationError

from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.text import clean_json
from chatkit_postgres.user_data.hosted.source import HostedThread, Json

Record = dict[str, Any]


@dataclass
class Converted:
    records: list[Record] = field(default_factory=list)
    placeholders: int = 0
    """Attachments, whose names come along without their bytes."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Item ids, each with the reason."""


def converted(hosted: HostedThread) -> Converted:
    """Raises ValueError or KeyError for a thread that cannot come along."""
    thread = clean_json(hosted.thread)
    thread_id, done = _id(thread), Converted()
    created_at = _time(thread).isoformat()
    done.records.append(
        {
            "type": "thread",
            "thread_id": thread_id,
            "created_at": created_at,
            "title": thread.get("title"),
            "status": _status(thread.get("status")),
        }
    )
    items: dict[str, Record] = {}
    attachments: dict[str, Record] = {}
    for given in hosted.items:
        try:
            item = _item(clean_json(given), thread_id)
            record = {"type": "item", "thread_id": thread_id, "item": json.loads(item.model_dump_json())}
        except (ValidationError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            done.left_out.append((str(given.get("id")), _reason(error)))
            continue
        items.setdefault(item.id, record)
        if isinstance(item, UserMessageItem):
            for attachment in item.attachments:
                # A file may be sent with several messages.
                attachments.setdefault(attachment.id, _placeholder(attachment, item, thread_id))
    done.placeholders = len(attachments)
    done.records += [*items.values(), *attachments.values()]
    return done


def _item(given: Json, thread_id: str) -> ThreadItem:
    kind = given.get("type")
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is no type of item that is known here")
    common = {"id": _id(given), "thread_id": thread_id, "created_at": _time(given)}
    return _KINDS[kind](given, common)


def _user_message(given: Json, common: Json) -> ThreadItem:
    parts = given.get("content") or []
    texts = [part["text"] for part in parts if part.get("type") != "quoted_text"]
    quoted = [part["text"] for part in parts if part.get("type") == "quoted_text"]
    options = given.get("inference_options") or {}
    return UserMessageItem(
        content=[UserMessageTextContent(text=text) for text in texts],
        # The preview is a picture at OpenAI, which will be gone.
        attachments=[
            FileAttachment(id=file["id"], name=file["name"], mime_type=file["mime_type"])
            for file in given.get("attachments") or ()
        ],
        quoted_text="\n".join(quoted) or None,
        inference_options=InferenceOptions.model_validate(
            {"model": options.get("model"), "tool_choice": options.get("tool_choice")}
        ),
        **common,
    )


def _assistant_message(given: Json, common: Json) -> ThreadItem:
    content = [
        AssistantMessageContent(
            text=part["text"], annotations=[_annotation(found["source"]) for found in part.get("annotations") or ()]
        )
        for part in given.get("content") or ()
    ]
    return AssistantMessageItem(content=content, **common)


def _annotation(source: Mapping[str, Any]) -> Annotation:
    if source["type"] == "url":
        return Annotation(source=URLSource(title=source["url"], url=source["url"]))
    return Annotation(source=FileSource(title=source["filename"], filename=source["filename"]))


def _widget(given: Json, common: Json) -> ThreadItem:
    return WidgetItem.model_validate({"widget": json.loads(given["widget"]), **common})


def _client_tool_call(given: Json, common: Json) -> ThreadItem:
    arguments = json.loads(given.get("arguments") or "{}")
    output = given.get("output")
    return ClientToolCallItem(
        status="completed" if given.get("status") == "completed" else "pending",
        call_id=given["call_id"],
        name=given["name"],
        arguments=arguments if isinstance(arguments, dict) else {"value": arguments},
        output=_parsed(output) if output is not None else None,
        **common,
    )


def _task_item(given: Json, common: Json) -> ThreadItem:
    return TaskItem(task=_task(given, given.get("task_type")), **common)


def _task_group(given: Json, common: Json) -> ThreadItem:
    tasks = [_task(task, task.get("type")) for task in given.get("tasks") or ()]
    are_thoughts = bool(tasks) and all(isinstance(task, ThoughtTask) for task in tasks)
    workflow = Workflow(type="reasoning" if are_thoughts else "custom", tasks=tasks)
    return WorkflowItem(workflow=workflow, **common)


def _task(given: Mapping[str, Any], kind: str | None) -> Task:
    heading, summary = given.get("heading"), given.get("summary")
    if kind == "thought":
        return ThoughtTask(title=heading, content=summary or "", status_indicator="complete")
    return CustomTask(title=heading, content=summary, status_indicator="complete")


_KINDS: Mapping[Any, Callable[[Json, Json], ThreadItem]] = {
    "chatkit.user_message": _user_message,
    "chatkit.assistant_message": _assistant_message,
    "chatkit.widget": _widget,
    "chatkit.client_tool_call": _client_tool_call,
    "chatkit.task": _task_item,
    "chatkit.task_group": _task_group,
}


def _placeholder(attachment: Any, item: UserMessageItem, thread_id: str) -> Record:
    session = session_uuid(thread_id)
    return {
        "type": "attachment",
        "attachment_id": attachment.id,
        "session_id": str(session),
        "message_id": str(message_uuid(session, item.id)),
        "attachment": json.loads(attachment.model_dump_json()),
        "created_at": item.created_at.isoformat(),
    }


def _id(given: Json) -> str:
    found = given.get("id")
    if not isinstance(found, str) or not found:
        raise ValueError("it has no id")
    return found


def _time(given: Json) -> datetime:
    """Unix seconds."""
    try:
        return datetime.fromtimestamp(given["created_at"], UTC)
    except (OverflowError, OSError):
        raise ValueError(f"created_at: {given['created_at']} is no time") from None


def _status(given: Any) -> Json:
    status = given if isinstance(given, dict) else {}
    kind = status.get("type")
    if kind not in {"locked", "closed"}:
        return {"type": "active"}
    reason = status.get("reason")
    return {"type": kind, "reason": reason} if reason else {"type": kind}


def _parsed(text: Any) -> Any:
    """The value of JSON; other text is a value itself."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error)
