// The conversation that is open, and the turn that is running in it.

import { ChatError } from "./client.js";
import { WAIT } from "./composer.js";
import { announce, at, hasKeyboard } from "./dom.js";
import { Endings } from "./endings.js";
import { keepPlace, keptPlace } from "./kept.js";
import { UNTITLED } from "./sidebar.js";
import { applyUpdate, textOf } from "./updates.js";

const PAGE = 40;
const NAME = "chatkit-postgres";
const LOADING = "Loading …";
const SLOW_MS = 300;

export class Conversation {
  threadId = null;
  #items = new Map();
  #opened = 0;
  #older = null;
  #turn = null;
  #isPlaced = false;
  #endings;

  /**
   * `client()` is the current user's; `listed()` is called when the list of conversations may have changed, `asked(call)`
   * when an answer has ended with a client tool call.
   */
  constructor({ client, log, composer, listed, asked }) {
    Object.assign(this, { client, log, composer, listed, asked });
    this.#endings = new Endings({ client, log, conversation: this });
    addEventListener("pagehide", () => {
      this.#leave();
      // A browser may cache the page for Back with its running turn: the message would be both sent and in its field.
      if (this.#turn && !this.#turn.isStored) this.stop();
    });
  }

  // The open conversation

  /** `title` is the title if it is known already. */
  async open(threadId, title) {
    this.#leave();
    this.stop();
    this.#turn = null;
    this.#opened++;
    this.#isPlaced = !threadId;
    this.threadId = threadId;
    this.#items.clear();
    this.log.clear();
    this.log.clearNotices();
    this.composer.turnTo(threadId);
    announce("");
    at("welcome").hidden = Boolean(threadId);
    if (!threadId) this.log.toStart();
    at("older").hidden = true;
    this.#setRunning(false);
    this.#showThread(threadId && { title: title ?? LOADING });
    // Before loading, so that a user who opens another conversation stays there.
    if (hasKeyboard()) this.composer.text.focus();
    if (!threadId) return;
    const opened = this.#opened;
    const slow = setTimeout(() => opened === this.#opened && this.log.progress(LOADING), SLOW_MS);
    try {
      await this.#read(threadId, keptPlace(this.client().user, threadId));
    } catch (error) {
      if (opened === this.#opened) {
        this.showTitle(title);
        this.#fail(error.message, () => this.open(threadId, title));
      }
    } finally {
      clearTimeout(slow);
      if (opened === this.#opened && !this.#turn) this.log.progress(null);
    }
  }

  showTitle(title) {
    at("title").textContent = title ?? UNTITLED;
    document.title = title ? `${title} – ${NAME}` : NAME;
  }

  async readOlder() {
    const opened = this.#opened;
    at("older").disabled = true;
    await this.guarded(async () => {
      const params = { thread_id: this.threadId, order: "desc", limit: PAGE, after: this.#older };
      const page = await this.client().call("items.list", params);
      if (opened !== this.#opened) return;
      const items = this.#take(page);
      this.#items = new Map([...items.map((item) => [item.id, item]), ...this.#items]);
      const isFocused = document.activeElement === document.body || document.activeElement === at("older");
      await this.log.prepend(items, () => this.#showOlder());
      if (isFocused && !this.#older) at("log").focus();
    });
    at("older").disabled = false;
  }

  #showOlder() {
    at("older").hidden = !this.#older;
  }

  #showThread(thread) {
    this.showTitle(thread?.title);
    const status = thread?.status?.type ?? "active";
    this.composer.close(status === "active" ? null : (thread.status.reason ?? `This conversation is ${status}.`));
  }

  async #read(threadId, place) {
    const opened = this.#opened;
    this.#isPlaced = false;
    // A message sent while the items are loading would be overwritten.
    this.composer.allow(false, "Wait until the conversation has loaded.");
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
      // Another conversation, or another user, was chosen; or an operation of this one is running.
      if (opened !== this.#opened || this.#turn) return;
      this.#showThread(thread);
      const items = this.#take(page);
      this.#showOlder();
      this.#items = new Map(items.map((item) => [item.id, item]));
      this.log.clear();
      await Promise.all(items.map((item) => this.log.put(item)));
      if (opened !== this.#opened) return;
      this.log.toPlace(place);
      this.#isPlaced = true;
      this.#endings.show();
    } finally {
      if (opened === this.#opened) this.composer.allow(!this.#turn);
    }
  }

  /** The last item with content. */
  last() {
    return [...this.#items.values()].findLast((item) => item.type !== "end_of_turn" && (item.type !== "assistant_message" || textOf(item)));
  }

  #leave() {
    if (this.threadId && this.#isPlaced) keepPlace(this.client().user, this.threadId, this.log.place());
    const turn = this.#turn;
    // The server may not have stored it.
    if (turn && !turn.isStored) {
      turn.refused?.();
      turn.refused = () => "";
    }
    if (turn) this.#endings.left(turn);
  }

  /** The items of a page that begins with the newest, oldest first. */
  #take(page) {
    this.#older = page.has_more ? page.after : null;
    return page.data.toReversed();
  }

  // A turn

  get isRunning() {
    return this.#turn !== null;
  }

  stop() {
    this.#turn?.controller.abort();
  }

  /**
   * Run a streaming operation to its end, and return whether it succeeded. `provisional` is the message as shown until the
   * server has stored it. `stored` is called then, or `refused` if that is not known; `again` is the action of "Try again".
   */
  async run(type, params, how = {}) {
    if (this.#turn) return false;
    const { key = crypto.randomUUID(), stored = () => {}, refused, again, provisional, isAutomatic = false } = how;
    const turn = { controller: new AbortController(), open: new Set(), isStored: false, hasFailed: false, isMessage: Boolean(again), provisional, refused };
    turn.again = again ?? (() => this.run(type, params, { stored }));
    this.#turn = turn;
    if (!isAutomatic) this.log.clearNotices();
    this.log.ended(null);
    this.#setRunning(true);
    if (provisional) {
      at("welcome").hidden = true;
      this.log.put(provisional, true);
    }
    this.log.progress("Thinking …");
    try {
      for await (const event of this.client().stream(type, params, { signal: turn.controller.signal, key })) {
        if (this.#turn !== turn) return false;
        // The server sends a message as soon as it is stored, so an error before that means that it is not.
        if (provisional && !turn.isStored && event.type === "error") throw new ChatError(event);
        if (!turn.isStored) stored();
        turn.isStored = true;
        this.#handle(event, turn);
      }
      if (!turn.isStored) throw new TypeError("The response was empty.");
    } catch (error) {
      if (this.#turn !== turn) return false;
      turn.hasFailed = true;
      // Repeat the request with the same key: the server runs it once, whatever the result of the first attempt.
      const unstored = turn.isStored ? { provisional: undefined, refused: undefined } : {};
      this.#failed(error, turn, () => this.run(type, params, { ...how, key, ...unstored }));
    } finally {
      if (this.#turn === turn) this.#end(turn);
      this.listed();
    }
    if (turn.hasFailed) return false;
    const last = this.last();
    if (last && last.type !== "user_message") {
      const text = await this.log.visibleText(last.id);
      if (last === this.last()) announce(`The assistant says: ${text.slice(0, 400) || last.type.replaceAll("_", " ")}`);
    }
    if (last?.type === "client_tool_call" && last.status === "pending") await this.asked(last);
    return true;
  }

  #failed(error, turn, repeat) {
    const isFinal = error instanceof ChatError && !(error.status >= 500) && error.status !== 429;
    const isStopped = error.name === "AbortError";
    const message = isStopped ? "Stopped." : error instanceof ChatError ? error.message : "The connection was lost.";
    if (turn.isStored) return this.#fail(message, isStopped ? turn.again : repeat, !isStopped);
    if (turn.provisional) this.log.remove(turn.provisional.id);
    at("welcome").hidden = Boolean(this.threadId);
    if (!turn.refused) return this.#fail(message, !isFinal && repeat, !isStopped);
    // The text is back in its field, to be sent from there, so this ending is not remembered.
    const word = turn.refused(isFinal);
    turn.isRefused = true;
    return this.#fail(isStopped ? message : `${message} ${word}`.trim(), null, !isStopped);
  }

  #end(turn) {
    this.#turn = null;
    for (const id of turn.open) {
      const item = this.#items.get(id);
      // Stopped before the first delta.
      if (item?.type === "assistant_message" && !textOf(item)) this.#remove(id);
      else if (item) this.log.put(item);
    }
    if (!turn.isRefused) this.#endings.keep(this.log.ending(), turn);
    this.log.progress(null);
    this.#setRunning(false);
  }

  #setRunning(isRunning) {
    const focused = document.activeElement;
    at("send").hidden = isRunning;
    at("stop").hidden = !isRunning;
    this.composer.allow(!isRunning);
    // The pressed button is removed, perhaps only just now; the focus moves to an element that exists.
    const isLost = focused === document.body || focused.closest("[hidden]") !== null;
    if (isLost && isRunning) at("stop").focus();
    else if (isLost && hasKeyboard()) this.composer.text.focus();
  }

  #fail(message, again, isError = true) {
    announce(message);
    this.log.ended(message, again, isError);
  }

  #handle(event, turn) {
    switch (event.type) {
      case "thread.created":
        // Received again after a broken connection.
        if (this.threadId !== event.thread.id) history.pushState(null, "", `#${event.thread.id}`);
        this.threadId = event.thread.id;
        this.composer.belongTo(event.thread.id);
        at("welcome").hidden = true;
        this.#showThread(event.thread);
        return this.listed();
      case "thread.updated":
        this.#showThread(event.thread);
        return this.listed();
      case "thread.item.added":
        turn.open.add(event.item.id);
        this.log.progress(null);
        return this.put(event.item, true);
      case "thread.item.done":
      case "thread.item.replaced":
        turn.open.delete(event.item.id);
        if (event.item.type !== "user_message") this.log.progress(null);
        else if (turn.provisional) this.log.rename(turn.provisional.id, event.item);
        return this.put(event.item, false);
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

  put(item, isRunning) {
    this.#items.set(item.id, item);
    return this.log.put(item, isRunning);
  }

  #remove(id) {
    this.#items.delete(id);
    this.log.remove(id);
  }

  // Messages of the user

  /** `stored` and `refused` are callbacks of the turn; `key` is stored with the draft; `attachments` are those of `input`. */
  send(input, { key, stored, refused, attachments = [] } = {}) {
    this.log.toEnd();
    const provisional = { ...input, id: `provisional-${crypto.randomUUID()}`, type: "user_message", attachments };
    const how = { key, stored, refused, provisional, again: () => this.retry() };
    return this.threadId
      ? this.run("threads.add_user_message", { thread_id: this.threadId, input }, how)
      : this.run("threads.create", { input }, how);
  }

  /** Retry the answer to the message before this item, or to the last message. */
  async retry(item) {
    const all = [...this.#items.values()];
    const until = item ? all.findIndex((one) => one.id === item.id) : all.length;
    const message = all.slice(0, until).findLast((one) => one.type === "user_message");
    if (message) await this.#retryAfter(message.id);
  }

  async #retryAfter(messageId) {
    if (this.isBusy()) return;
    const opened = this.#opened;
    const all = [...this.#items.keys()];
    for (const old of all.slice(all.indexOf(messageId) + 1)) this.#remove(old);
    const params = { thread_id: this.threadId, item_id: messageId };
    const how = { again: () => this.#retryAfter(messageId) };
    if (await this.run("threads.retry_after_item", params, how)) return;
    // The server replaces the old answer only when there is a new one.
    if (opened !== this.#opened) return;
    const ending = this.log.ending();
    await this.guarded(() => this.#read(params.thread_id, this.log.place()));
    if (opened !== this.#opened || this.#turn) return;
    this.log.ended(ending.text, ending.again && how.again, ending.isError);
    this.#endings.keep(ending, { isMessage: true });
  }

  /** Return whether an answer is running; if so, show a notice. */
  isBusy() {
    if (this.#turn) this.log.tell(WAIT, { level: "info" });
    return this.#turn !== null;
  }

  /** Return a function that checks whether this conversation is still open. */
  whileOpen() {
    const opened = this.#opened;
    return () => opened === this.#opened;
  }

  /** Do it, and show an error if this conversation is still open. */
  async guarded(work) {
    const opened = this.#opened;
    try {
      return await work();
    } catch (error) {
      if (opened === this.#opened) this.log.tell(error.message);
      return undefined;
    }
  }
}
