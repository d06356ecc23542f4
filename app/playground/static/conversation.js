// The conversation that is open, and the turn that is running in it.

import { ChatError } from "./client.js";
import { announce, at } from "./dom.js";
import { keepEnding, keepRating, keptEnding, keptRating } from "./kept.js";
import { UNTITLED } from "./sidebar.js";
import { applyUpdate, textOf } from "./updates.js";

const PAGE = 40;
const NAME = "chatkit-postgres";
// Characters that a server may have said before it knew that nobody reads any more.
const ON_ITS_WAY = 200;

// What this page can do for an assistant that asks it to.
const CLIENT_TOOLS = {
  get_page_title: () => ({ title: document.title }),
};

export class Conversation {
  threadId = null;
  #items = new Map();
  #opened = 0;
  #older = null;
  #turn = null;

  /** `client()` is who speaks; `listed()` is called when the list of conversations may have changed. */
  constructor({ client, log, composer, listed }) {
    Object.assign(this, { client, log, composer, listed });
    addEventListener("pagehide", () => this.#leave());
  }

  // Which one

  async open(threadId) {
    this.#leave();
    this.stop();
    this.#turn = null;
    this.#opened++;
    this.threadId = threadId;
    this.#items.clear();
    this.log.clear();
    this.log.clearNotices();
    this.composer.quote(null);
    announce("");
    at("welcome").hidden = Boolean(threadId);
    if (!threadId) this.log.toStart();
    at("older").hidden = true;
    this.#setRunning(false);
    this.#showThread(null);
    // Before it is read: whoever goes elsewhere meanwhile is left there.
    this.composer.text.focus();
    if (threadId) await this.#guarded(() => this.#read(threadId));
  }

  showTitle(title) {
    at("title").textContent = title ?? UNTITLED;
    document.title = title ? `${title} – ${NAME}` : NAME;
  }

  async readOlder() {
    const opened = this.#opened;
    at("older").disabled = true;
    await this.#guarded(async () => {
      const params = { thread_id: this.threadId, order: "desc", limit: PAGE, after: this.#older };
      const page = await this.client().call("items.list", params);
      if (opened !== this.#opened) return;
      const items = this.#take(page);
      this.#items = new Map([...items.map((item) => [item.id, item]), ...this.#items]);
      await this.log.prepend(items);
    });
    at("older").disabled = false;
  }

  #showThread(thread) {
    this.showTitle(thread?.title);
    const status = thread?.status?.type ?? "active";
    this.composer.close(status === "active" ? null : (thread.status.reason ?? `This conversation is ${status}.`));
  }

  async #read(threadId) {
    const opened = this.#opened;
    // What was said meanwhile would be drawn over.
    this.composer.allow(false);
    try {
      const [thread, page] = await Promise.all([
        this.client().call("threads.get_by_id", { thread_id: threadId }),
        this.client().call("items.list", { thread_id: threadId, order: "desc", limit: PAGE }),
      ]).catch((error) => {
        if (error.status !== 404 || opened !== this.#opened) throw error;
        return [];
      });
      if (opened === this.#opened && !thread) {
        history.replaceState(null, "", location.pathname);
        await this.open(null);
        this.log.tell("There is no such conversation here. It may be somebody else's, or deleted.");
        return;
      }
      // Another conversation, or another user, was chosen meanwhile.
      if (opened !== this.#opened) return;
      this.#showThread(thread);
      const items = this.#take(page);
      this.#items = new Map(items.map((item) => [item.id, item]));
      this.log.clear();
      await Promise.all(items.map((item) => this.log.put(item)));
      if (opened !== this.#opened) return;
      this.log.toEnd();
      this.#showEnding();
    } finally {
      if (opened === this.#opened) this.composer.allow(!this.#turn);
    }
  }

  #last() {
    return [...this.#items.values()].findLast((item) => item.type !== "end_of_turn" && (item.type !== "assistant_message" || textOf(item)));
  }

  #leave() {
    const turn = this.#turn;
    const last = this.#last();
    if (!turn || !last || !turn.open.has(last.id)) return;
    this.#keep(["You left before this answer was finished.", turn.again], turn, textOf(last).length + ON_ITS_WAY);
  }

  /** How it had ended when this page was here before; or that a message has no answer: its page was closed before the
      first word, or another page waits for it. */
  #showEnding() {
    const last = this.#last();
    if (!last || at("composer").hidden) return;
    const kept = keptEnding(this.client().user, this.threadId);
    if (kept?.after === last.id && !(textOf(last).length > kept.length)) {
      this.log.ended(kept.text, kept.again && (() => this.retry()));
      // What was on its way when the page was left has come; if more comes, it goes on without us.
      if (kept.length !== undefined) keepEnding(this.client().user, this.threadId, { ...kept, length: textOf(last).length });
    } else if (last.type === "user_message") this.log.ended("There is no answer to this.", () => this.retry());
  }

  /** Only what answers a message can be tried again later: what an action or an answer was to do is not kept. */
  #keep([text, again], { isMessage }, length) {
    const last = this.#last();
    if (!this.threadId || !last) return;
    keepEnding(this.client().user, this.threadId, text && { after: last.id, text, again: Boolean(again) && isMessage, length });
  }

  /** The items of a page that begins with the newest, in the order they were said. */
  #take(page) {
    this.#older = page.has_more ? page.after : null;
    at("older").hidden = !this.#older;
    return page.data.toReversed();
  }

  // A turn

  stop() {
    this.#turn?.controller.abort();
  }

  /**
   * Run an operation that streams, to its end. True if it ended well. `stored` is called when the server has it; `refused`
   * if it is not known to have it, and `again` is what "Try again" does once it has.
   */
  async #run(type, params, { key = crypto.randomUUID(), stored = () => {}, refused, again, isAutomatic = false } = {}) {
    if (this.#turn) return false;
    const turn = { controller: new AbortController(), open: new Set(), isStored: false, hasFailed: false, isMessage: Boolean(again) };
    turn.again = again ?? (() => this.#run(type, params, { stored }));
    this.#turn = turn;
    this.#setRunning(true);
    if (!isAutomatic) this.log.clearNotices();
    this.log.ended(null);
    this.log.progress("Thinking …");
    try {
      for await (const event of this.client().stream(type, params, { signal: turn.controller.signal, key })) {
        if (this.#turn !== turn) return false;
        if (!turn.isStored) stored();
        turn.isStored = true;
        this.#handle(event, turn);
      }
    } catch (error) {
      if (this.#turn !== turn) return false;
      turn.hasFailed = true;
      // The same request once more, under the same key: whatever became of the first one, it is one.
      const repeat = () => this.#run(type, params, { key, stored, refused, again, isAutomatic });
      this.#failed(error, turn, repeat, refused);
    } finally {
      if (this.#turn === turn) this.#end(turn);
      this.listed();
    }
    if (turn.hasFailed) return false;
    const last = this.#last();
    if (last && last.type !== "user_message") {
      const said = await this.log.said(last.id);
      if (last === this.#last()) announce(`The assistant says: ${said.slice(0, 400) || last.type.replaceAll("_", " ")}`);
    }
    if (last?.type === "client_tool_call" && last.status === "pending") await this.callTool(last, true);
    return true;
  }

  #failed(error, turn, repeat, refused) {
    const isFinal = error instanceof ChatError && error.status < 500 && error.status !== 429;
    const message = error.name === "AbortError" ? "Stopped." : error instanceof ChatError ? error.message : "The connection was lost.";
    if (turn.isStored) return this.#fail(message, error.name === "AbortError" ? turn.again : repeat);
    // What was written is in its field again, to be sent from there.
    refused?.();
    return this.#fail(message, !refused && !isFinal && repeat);
  }

  #end(turn) {
    this.#turn = null;
    for (const id of turn.open) {
      const item = this.#items.get(id);
      // Stopped before its first word.
      if (item?.type === "assistant_message" && !textOf(item)) this.#remove(id);
      else if (item) this.log.put(item);
    }
    this.#keep(this.log.ending(), turn);
    this.log.progress(null);
    this.#setRunning(false);
  }

  #setRunning(isRunning) {
    const focused = document.activeElement;
    at("send").hidden = isRunning;
    at("stop").hidden = !isRunning;
    this.composer.allow(!isRunning);
    // The button that was pressed has gone, perhaps so lately that it still counts; the keyboard goes to what is there.
    const isLost = focused === document.body || focused.closest("[hidden]") !== null;
    if (isLost) (isRunning ? at("stop") : this.composer.text).focus();
  }

  #fail(message, again) {
    announce(message);
    this.log.ended(message, again);
  }

  #handle(event, turn) {
    switch (event.type) {
      case "thread.created":
        // Once more after a connection broke.
        if (this.threadId !== event.thread.id) history.pushState(null, "", `#${event.thread.id}`);
        this.threadId = event.thread.id;
        at("welcome").hidden = true;
        this.#showThread(event.thread);
        return this.listed();
      case "thread.updated":
        this.#showThread(event.thread);
        return this.listed();
      case "thread.item.added":
        turn.open.add(event.item.id);
        this.log.progress(null);
        return this.#put(event.item, true);
      case "thread.item.done":
      case "thread.item.replaced":
        turn.open.delete(event.item.id);
        if (event.item.type !== "user_message") this.log.progress(null);
        return this.#put(event.item, false);
      case "thread.item.updated": {
        const item = this.#items.get(event.item_id);
        if (!item) return undefined;
        applyUpdate(item, event.update);
        return this.log.put(item, turn.open.has(item.id));
      }
      case "thread.item.removed":
        return this.#remove(event.item_id);
      case "progress_update":
        announce(event.text);
        return this.log.progress(event.text);
      case "notice":
        return this.log.notice(event);
      case "client_effect":
        return this.log.tell(JSON.stringify(event.data), { level: "info", title: `Effect ${event.name}` });
      case "error":
        turn.hasFailed = true;
        return this.#fail(event.message ?? "The answer could not be finished.", event.allow_retry && turn.again);
    }
    return undefined;
  }

  #put(item, isRunning) {
    this.#items.set(item.id, item);
    return this.log.put(item, isRunning);
  }

  #remove(id) {
    this.#items.delete(id);
    this.log.remove(id);
  }

  // What people do

  /** `stored` and `refused` as they are called by a turn; `key` is kept with what was written. */
  send(input, { key, stored, refused } = {}) {
    this.log.toEnd();
    const how = { key, stored, refused, again: () => this.retry() };
    return this.threadId
      ? this.#run("threads.add_user_message", { thread_id: this.threadId, input }, how)
      : this.#run("threads.create", { input }, how);
  }

  /** Answer the message before this item once more, or the last message. */
  async retry(item) {
    const all = [...this.#items.values()];
    const until = item ? all.findIndex((one) => one.id === item.id) : all.length;
    const said = all.slice(0, until).findLast((one) => one.type === "user_message");
    if (said) await this.#retryAfter(said.id);
  }

  async #retryAfter(messageId) {
    if (this.#isBusy()) return;
    const opened = this.#opened;
    const all = [...this.#items.keys()];
    for (const old of all.slice(all.indexOf(messageId) + 1)) this.#remove(old);
    const params = { thread_id: this.threadId, item_id: messageId };
    const how = { again: () => this.#retryAfter(messageId) };
    if (await this.#run("threads.retry_after_item", params, how)) return;
    // The server keeps the old answer until there is a new one: without a new one it is still there.
    if (opened !== this.#opened) return;
    const [text, again] = this.log.ending();
    await this.#guarded(() => this.#read(params.thread_id));
    if (opened !== this.#opened || this.#turn) return;
    this.log.ended(text, again && how.again);
    this.#keep([text, again], { isMessage: true });
  }

  /** True, and says so, while an answer is under way. */
  #isBusy() {
    if (this.#turn) this.log.tell("Wait until the answer is finished, or stop it.", { level: "info" });
    return this.#turn !== null;
  }

  async rate(item, kind) {
    return this.#guarded(async () => {
      await this.client().call("items.feedback", { thread_id: this.threadId, item_ids: [item.id], kind });
      keepRating(this.client().user, item.id, kind);
      announce("Thank you for the feedback.");
      return true;
    });
  }

  rated(item) {
    return keptRating(this.client().user, item.id);
  }

  async act(item, action, values, element) {
    // As ChatKit does: what the action says itself comes before what a form holds.
    const payload = values ? { ...values, ...action.payload } : action.payload;
    if (action.handler === "client") {
      this.log.tell(JSON.stringify(payload ?? {}), { level: "info", title: `For the application: ${action.type}` });
      return;
    }
    // One at a time, so that a double click is one action. An answer under way goes on beside one that does not stream.
    if (element.dataset.isActing || (action.streaming !== false && this.#isBusy())) return;
    element.dataset.isActing = "yes";
    const params = { thread_id: this.threadId, item_id: item.id, action: { type: action.type, payload } };
    try {
      if (action.streaming === false) await this.#guarded(() => this.#actAtOnce(params));
      else await this.#run("threads.custom_action", params);
    } finally {
      delete element.dataset.isActing;
    }
  }

  async #actAtOnce(params) {
    const opened = this.#opened;
    const { updated_item: updated } = await this.client().call("threads.sync_custom_action", params);
    if (updated && opened === this.#opened) this.#put(updated, false);
  }

  async answer(item, submission) {
    if (this.#isBusy()) return;
    const isStored = () => this.#put({ ...item, status: submission.status, inputs: withAnswers(item, submission) }, false);
    await this.#run("threads.add_structured_input", { thread_id: this.threadId, item_id: item.id, input: submission }, { stored: isStored });
  }

  /** Automatically, when an answer has ended with the call; or because somebody asks for it. */
  async callTool(item, isAutomatic = false) {
    if (this.#isBusy()) return;
    const tool = Object.hasOwn(CLIENT_TOOLS, item.name) && CLIENT_TOOLS[item.name];
    const result = tool ? tool(item.arguments) : { error: `This page has no tool ${item.name}.` };
    // The stream tells the answer, and not the call again.
    const stored = () => this.#put({ ...item, status: "completed", output: result }, false);
    await this.#run("threads.add_client_tool_output", { thread_id: this.threadId, result }, { stored, isAutomatic });
  }

  async #guarded(work) {
    const opened = this.#opened;
    try {
      return await work();
    } catch (error) {
      if (opened === this.#opened) this.log.tell(error.message);
      return undefined;
    }
  }
}

const withAnswers = (item, { answers }) => item.inputs.map((question) => ({ ...question, answer: answers[question.id] ?? null }));
