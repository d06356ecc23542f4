// Remembers how a conversation's last turn failed or was stopped, and shows it again after a reload or a switch.

import { at } from "./dom.js";
import { saveEnding, loadEnding } from "./tab-state.js";

export class Endings {
  constructor({ client, log, conversation }) {
    Object.assign(this, { client, log, conversation });
  }

  /** Only an answer to a message can be retried later: the input of actions and of answered questions is not stored. */
  save({ text, again, isError }, { isMessage, replaced }) {
    const last = this.conversation.items.last();
    if (!this.conversation.threadId || !last) return;
    // A retry that failed: the server may have kept the answer that was to be replaced.
    const ending = text && { after: [last.id, replaced], text, again: Boolean(again) && isMessage, isError };
    saveEnding(this.client().user, this.conversation.threadId, ending);
  }

  /** The stored ending; or that a message has no answer. */
  show() {
    const { threadId } = this.conversation;
    const last = this.conversation.items.last();
    if (!last || at("composer").hidden) return;
    const saved = loadEnding(this.client().user, threadId);
    const retry = () => this.conversation.retry();
    if (saved?.after.includes(last.id)) this.log.ended(saved.text, saved.again && retry, saved.isError);
    else if (last.type === "user_message") this.log.ended("There is no answer to this.", retry);
  }
}
