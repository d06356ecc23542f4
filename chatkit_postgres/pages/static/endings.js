// Remembers how a conversation's last turn failed or was stopped, and shows it again after a reload or a switch.

import { at } from "./dom.js";
import { keepEnding, keptEnding } from "./kept.js";

export class Endings {
  constructor({ client, log, conversation }) {
    Object.assign(this, { client, log, conversation });
  }

  /** Only an answer to a message can be retried later: the input of actions and of answered questions is not stored. */
  keep({ text, again, isError }, { isMessage, replaced }) {
    const last = this.conversation.items.last();
    if (!this.conversation.threadId || !last) return;
    // A retry that failed: the server may have kept the answer that was to be replaced.
    const ending = text && { after: [last.id, replaced], text, again: Boolean(again) && isMessage, isError };
    keepEnding(this.client().user, this.conversation.threadId, ending);
  }

  /** The stored ending; or that a message has no answer. */
  show() {
    const { threadId } = this.conversation;
    const last = this.conversation.items.last();
    if (!last || at("composer").hidden) return;
    const kept = keptEnding(this.client().user, threadId);
    const retry = () => this.conversation.retry();
    if (kept?.after.includes(last.id)) this.log.ended(kept.text, kept.again && retry, kept.isError);
    else if (last.type === "user_message") this.log.ended("There is no answer to this.", retry);
  }
}
