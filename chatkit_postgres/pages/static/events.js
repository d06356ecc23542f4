// Shows the events of a running turn in the open conversation.

import { announce } from "./dom.js";

export function showEvent(event, turn, conversation) {
  const { items, log } = conversation;
  switch (event.type) {
    case "thread.created":
      conversation.created(event.thread);
      conversation.showThread(event.thread);
      return conversation.changed();
    case "thread.updated":
      conversation.showThread(event.thread);
      return conversation.changed();
    case "thread.item.added":
      turn.open.add(event.item.id);
      log.progress(null);
      return items.put(event.item, true);
    case "thread.item.done":
    case "thread.item.replaced":
      turn.open.delete(event.item.id);
      if (event.item.type !== "user_message") log.progress(null);
      else if (turn.provisional) log.rename(turn.provisional.id, event.item);
      else turn.answers(() => conversation.retry());
      return items.put(event.item, false);
    case "thread.item.updated":
      return items.update(event.item_id, event.update, turn.open.has(event.item_id));
    case "thread.item.removed":
      return items.remove(event.item_id);
    case "progress_update":
      announce(event.text);
      return log.progress(event.text);
    case "notice":
      return log.showAssistantNotice(event);
    case "client_effect":
      return conversation.effect(event.name, event.data);
    case "error":
      turn.hasFailed = true;
      return conversation.fail(event.message ?? "The answer could not be finished.", event.allow_retry && turn.again);
  }
  return undefined;
}
