// Remembers how a conversation's last turn failed or was stopped, and shows it again after a reload or a switch.

import { at } from "./dom.js";
import { keepEnding, keptEnding } from "./kept.js";
import { textOf } from "./updates.js";

// Characters that a server may have sent before it noticed that the reader had left.
const ON_ITS_WAY = 200;

export class Endings {
  constructor({ client, log, conversation }) {
    Object.assign(this, { client, log, conversation });
  }

  /** The ending of a turn that is left while its answer is streamed. */
  left(turn) {
    const last = this.conversation.last();
    if (!last || !turn.open.has(last.id)) return;
    this.keep({ text: "You left before this answer was finished.", again: turn.again }, turn, textOf(last).length + ON_ITS_WAY);
  }

  /** Only an answer to a message can be retried later: the input of actions and of answered questions is not stored. */
  keep({ text, again, isError }, { isMessage }, length) {
    const last = this.conversation.last();
    if (!this.conversation.threadId || !last) return;
    const ending = text && { after: last.id, text, again: Boolean(again) && isMessage, isError, length };
    keepEnding(this.client().user, this.conversation.threadId, ending);
  }

  /** The stored ending; or that a message has no answer: its page was closed before the first delta, or another page waits. */
  show() {
    const { threadId } = this.conversation;
    const last = this.conversation.last();
    if (!last || at("composer").hidden) return;
    const kept = keptEnding(this.client().user, threadId);
    const retry = () => this.conversation.retry();
    if (kept?.after === last.id && !(textOf(last).length > kept.length)) {
      this.log.ended(kept.text, kept.again && retry, kept.isError);
      // The text in transit when the page was left has arrived; if more arrives, the turn goes on without this page.
      if (kept.length !== undefined) keepEnding(this.client().user, threadId, { ...kept, length: textOf(last).length });
    } else if (last.type === "user_message") this.log.ended("There is no answer to this.", retry);
  }
}
