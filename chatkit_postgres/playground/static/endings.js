// How the last turn of a conversation ended, if it did not end well: told again after a reload or a change of conversation.

import { at } from "./dom.js";
import { keepEnding, keptEnding } from "./kept.js";
import { textOf } from "./updates.js";

// Characters that a server may have said before it knew that nobody reads any more.
const ON_ITS_WAY = 200;

export class Endings {
  constructor({ client, log, conversation }) {
    Object.assign(this, { client, log, conversation });
  }

  /** Of a turn that is left while its answer is being written. */
  left(turn) {
    const last = this.conversation.last();
    if (!last || !turn.open.has(last.id)) return;
    this.keep({ text: "You left before this answer was finished.", again: turn.again }, turn, textOf(last).length + ON_ITS_WAY);
  }

  /** Only what answers a message can be tried again later: what an action or an answer was to do is not kept. */
  keep({ text, again, isError }, { isMessage }, length) {
    const last = this.conversation.last();
    if (!this.conversation.threadId || !last) return;
    const ending = text && { after: last.id, text, again: Boolean(again) && isMessage, isError, length };
    keepEnding(this.client().user, this.conversation.threadId, ending);
  }

  /** What was kept; or that a message has no answer: its page was closed before the first word, or another page waits for it. */
  show() {
    const { threadId } = this.conversation;
    const last = this.conversation.last();
    if (!last || at("composer").hidden) return;
    const kept = keptEnding(this.client().user, threadId);
    const retry = () => this.conversation.retry();
    if (kept?.after === last.id && !(textOf(last).length > kept.length)) {
      this.log.ended(kept.text, kept.again && retry, kept.isError);
      // What was on its way when the page was left has come; if more comes, it goes on without us.
      if (kept.length !== undefined) keepEnding(this.client().user, threadId, { ...kept, length: textOf(last).length });
    } else if (last.type === "user_message") this.log.ended("There is no answer to this.", retry);
  }
}
