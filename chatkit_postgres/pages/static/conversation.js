// The conversation that is open, and the turn that is running in it.

import { ChatError } from "./client.js";
import { WAIT } from "./composer.js";
import { announce, at, hasKeyboard } from "./dom.js";
import { Endings } from "./endings.js";
import { showEvent } from "./events.js";
import { savePlace, loadPlace } from "./tab-state.js";
import { UNTITLED } from "./sidebar.js";
import { ThreadItems } from "./thread-items.js";
import { Turn } from "./turn.js";
import { textOf } from "./updates.js";

const PAGE = 40;
const LOADING = "Loading …";
const SLOW_MS = 300;

export class Conversation {
  threadId = null;
  /** The ThreadItems. */
  items;
  #opened = 0;
  #older = null;
  #turn = null;
  #turnsBegun = 0;
  #isPlaced = false;
  #endings;
  #title;
  #name = document.title;

  /**
   * As of `assemble`; `asked(call)` is called when an answer has ended with a client tool call.
   */
  constructor({ client, log, composer, changed, entered, left, effect, asked }) {
    Object.assign(this, { client, log, composer, changed, entered, left, effect, asked });
    this.items = new ThreadItems(log);
    this.#endings = new Endings({ client, log, conversation: this });
    addEventListener("pagehide", () => {
      this.#leave();
      // A browser may cache the page for Back with its running turn: the message would be both sent and in its field.
      if (this.#turn && !this.#turn.isStored) this.#turn.leave();
    });
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#catchUp());
  }

  // The open conversation

  /** `title` is the title if it is known already; `itemId` a message to show. */
  async open(threadId, title, itemId) {
    this.#leave();
    this.#turn?.leave();
    this.#turn = null;
    this.#opened++;
    this.#isPlaced = !threadId;
    this.threadId = threadId;
    this.items.clear();
    this.log.clearNotices();
    this.composer.turnTo(threadId);
    announce("");
    at("welcome").hidden = Boolean(threadId);
    if (!threadId) this.log.toStart();
    at("older").hidden = true;
    this.#setRunning(false);
    this.showThread(threadId && { title: title ?? LOADING });
    // Before loading, so that a user who opens another conversation stays there.
    if (hasKeyboard()) this.composer.text.focus();
    if (!threadId) return;
    const opened = this.#opened;
    const slow = setTimeout(() => opened === this.#opened && this.log.progress(LOADING), SLOW_MS);
    try {
      await this.#read(threadId, loadPlace(this.client().user, threadId));
      if (itemId && opened === this.#opened) await this.showItem(itemId);
    } catch (error) {
      if (opened === this.#opened) {
        this.showTitle(title);
        this.fail(error.message, () => this.open(threadId, title, itemId));
      }
    } finally {
      clearTimeout(slow);
      if (opened === this.#opened && !this.#turn) this.log.progress(null);
    }
  }

  showTitle(title) {
    this.#title = title;
    at("title").textContent = title ?? UNTITLED;
    document.title = [title, this.#name].filter(Boolean).join(" – ");
    for (const button of document.querySelectorAll(".of-thread")) button.hidden = !this.threadId || title === LOADING;
  }

  /** The open conversation, as the header shows it. */
  get thread() {
    return { id: this.threadId, title: this.#title };
  }

  /** The name of the assistant, for the title of the page. */
  setName(name) {
    this.#name = name;
    this.showTitle(this.#title);
  }

  async readOlder() {
    const opened = this.#opened;
    at("older").disabled = true;
    await this.guarded(async () => {
      const params = { thread_id: this.threadId, order: "desc", limit: PAGE, after: this.#older };
      const page = await this.client().call("items.list", params);
      if (opened !== this.#opened) return;
      const isFocused = document.activeElement === document.body || document.activeElement === at("older");
      await this.items.prepend(this.#take(page), () => this.#showOlder());
      if (isFocused && !this.#older) at("log").focus();
    });
    at("older").disabled = false;
  }

  /** Scroll to a message; older ones are loaded until it is there. */
  async showItem(itemId) {
    const isHere = this.whileOpen();
    while (isHere() && !this.items.get(itemId)) {
      const older = this.#older;
      if (older) await this.readOlder();
      if (!isHere()) return;
      if (this.#older === older) return void this.log.showNotice("This message is no longer here.");
    }
    if (isHere()) this.log.showItem(itemId);
  }

  #showOlder() {
    at("older").hidden = !this.#older;
  }

  showThread(thread) {
    this.showTitle(thread?.title);
    const status = thread?.status?.type ?? "active";
    this.composer.close(status === "active" ? null : (thread.status.reason ?? `This conversation is ${status}.`));
  }

  async #read(threadId, place) {
    const opened = this.#opened;
    this.#isPlaced = false;
    // A message sent while the items are loading would be overwritten.
    this.composer.allow(false, "Wait until the conversation has loaded.");
    let isRunning = false;
    try {
      // First, so that the items are complete if no turn is running.
      isRunning = await this.client().isRunning(threadId);
      const [thread, page] = await Promise.all([
        this.client().call("threads.get_by_id", { thread_id: threadId }),
        this.#newest(threadId),
      ]).catch((error) => {
        if (error.status !== 404 || opened !== this.#opened) throw error;
        return [];
      });
      if (opened === this.#opened && !thread) {
        this.left();
        await this.open(null);
        this.log.showNotice("There is no such conversation here. It may be somebody else's, or deleted.");
        return;
      }
      // Another conversation, or another user, was chosen; or an operation of this one is running.
      if (opened !== this.#opened || this.#turn) return;
      this.showThread(thread);
      const items = this.#take(page);
      this.#showOlder();
      await this.items.show(items);
      if (opened !== this.#opened) return;
      this.log.toPlace(place);
      this.#isPlaced = true;
      if (isRunning) this.#follow();
      else this.#endings.show();
    } finally {
      if (opened === this.#opened) this.composer.allow(!this.#turn);
    }
  }

  #newest(threadId) {
    return this.client().call("items.list", { thread_id: threadId, order: "desc", limit: PAGE });
  }

  /** Show what other pages have added while this one was not looked at, and follow a turn that is running. */
  async #catchUp() {
    const { threadId } = this;
    const isHere = this.whileOpen();
    if (!threadId || !this.#isPlaced || this.#turn) return;
    const begun = this.#turnsBegun;
    const isRunning = await this.client().isRunning(threadId);
    const page = await this.#newest(threadId).catch(() => null);
    // A turn of this page that has begun since, and may have ended, is newer than what was read.
    if (!page || !isHere() || this.#turn || this.#turnsBegun !== begun) return;
    const last = this.items.last();
    this.#refresh(page);
    if (this.items.last()?.id !== last?.id) this.log.ended(null);
    if (isRunning) this.#follow();
  }

  /** Make the newest items equal to those of a page; so many may be new that what was shown is older than all of them. */
  #refresh(page) {
    if (!page.data.some((item) => this.items.get(item.id))) {
      this.#take(page);
      this.#showOlder();
    }
    this.items.refresh(page.data.toReversed());
  }

  #leave() {
    if (this.threadId && this.#isPlaced) savePlace(this.client().user, this.threadId, this.log.place());
    const turn = this.#turn;
    // The server may not have stored it.
    if (turn && !turn.isStored) {
      turn.refused?.();
      turn.refused = () => "";
    }
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
    this.#turn?.requestStop();
  }

  /**
   * Run a streaming operation to its end, and return whether it succeeded. `provisional` is the message as shown until the
   * server has stored it. `stored` is called then, or `refused` if that is not known; `again` is the action of "Try again".
   * `replaced` is the id of the last item of the answer that a retry replaces.
   */
  async run(type, params, how = {}) {
    if (this.#turn) return false;
    const { key = crypto.randomUUID(), stored = () => {}, refused, again, provisional, replaced, isAutomatic = false } = how;
    const repeat = again ?? (() => this.run(type, params, { stored }));
    const turn = this.#begin({ again: repeat, isMessage: Boolean(again), provisional, refused, replaced });
    if (!isAutomatic) this.log.clearNotices();
    if (provisional) {
      at("welcome").hidden = true;
      this.log.putOwn(provisional);
    }
    try {
      for await (const event of this.client().stream(type, params, { signal: turn.signal, key })) {
        if (this.#turn !== turn) return false;
        // The server sends a message as soon as it is stored, so an error before that means that it is not.
        if (provisional && !turn.isStored && event.type === "error") throw new ChatError(event);
        if (!turn.isStored) {
          stored();
          turn.store();
          if (this.threadId) this.changed();
        }
        showEvent(event, turn, this);
      }
      if (!turn.isStored) throw new TypeError("The response was empty.");
      await turn.stopping;
    } catch (error) {
      if (this.#turn !== turn) return false;
      turn.hasFailed = true;
      // Repeat the request with the same key: the server runs it once, whatever the result of the first attempt.
      const unstored = turn.isStored ? { provisional: undefined, refused: undefined } : {};
      this.#failed(error, turn, () => this.run(type, params, { ...how, key, ...unstored }));
    } finally {
      if (this.#turn === turn) this.#end(turn);
      this.changed();
    }
    if (turn.hasFailed) return false;
    const last = await this.#announceLast();
    if (last?.type === "client_tool_call" && last.status === "pending") await this.asked(last);
    return true;
  }

  /** Follow the turn of another page, or of this one before a reload, until no turn is running. */
  async #follow() {
    const { threadId } = this;
    const turn = this.#begin({ isStored: true });
    try {
      for await (const event of this.client().follow(threadId, turn.signal)) {
        if (this.#turn !== turn) return;
        // The first event of a turn, also of one that is followed again: the end of the one before is out of date.
        if (event.type === "stream_options") {
          turn.hasFailed = false;
          this.log.ended(null);
        }
        showEvent(event, turn, this);
      }
      await turn.stopping;
      const page = await this.#newest(threadId);
      if (this.#turn === turn) this.#refresh(page);
    } catch (error) {
      if (this.#turn !== turn) return;
      turn.hasFailed = true;
      this.#failed(error, turn, () => this.open(threadId));
    } finally {
      if (this.#turn === turn) this.#end(turn);
      this.changed();
    }
    if (!turn.hasFailed) await this.#announceLast();
  }

  async #announceLast() {
    const last = this.items.last();
    if (last && last.type !== "user_message") {
      const text = await this.log.visibleText(last.id);
      if (last === this.items.last()) announce(`The assistant says: ${text.slice(0, 400) || last.type.replaceAll("_", " ")}`);
    }
    return last;
  }

  #begin(how) {
    const isHere = this.whileOpen();
    this.#turnsBegun++;
    this.#turn = new Turn({ ...how, stop: async () => isHere() && this.threadId && this.client().stop(this.threadId) });
    this.log.ended(null);
    this.log.progress("Thinking …");
    this.#setRunning(true);
    return this.#turn;
  }

  #failed(error, turn, repeat) {
    const isFinal = error instanceof ChatError && !(error.status >= 500) && error.status !== 429;
    const isStopped = error.name === "AbortError";
    const stopped = turn.isOutOfReach ? "The server could not be asked to stop: the answer may go on there." : "Stopped.";
    const message = isStopped ? stopped : error instanceof ChatError ? error.message : "The connection was lost.";
    if (turn.isStored) return this.fail(message, isStopped ? turn.again : repeat, !isStopped);
    if (turn.provisional) this.log.remove(turn.provisional.id);
    at("welcome").hidden = Boolean(this.threadId);
    if (!turn.refused) return this.fail(message, !isFinal && repeat, !isStopped);
    // The text is back in its field, to be sent from there, so this ending is not remembered.
    const word = turn.refused(isFinal);
    turn.isRefused = true;
    return this.fail(isStopped ? message : `${message} ${word}`.trim(), null, !isStopped);
  }

  #end(turn) {
    this.#turn = null;
    if (turn.isStopped && !turn.hasFailed) {
      turn.hasFailed = true;
      this.fail("Stopped.", turn.again, false);
    }
    for (const id of turn.open) {
      const item = this.items.get(id);
      // Stopped before the first delta.
      if (item?.type === "assistant_message" && !textOf(item)) this.items.remove(id);
      else if (item) this.log.put(item);
    }
    if (!turn.isRefused) this.#endings.save(this.log.ending(), turn);
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

  fail(message, again, isError = true) {
    announce(message);
    this.log.ended(message, again, isError);
  }

  /** The conversation that a first message has made; its event comes again after a broken connection. */
  created(thread) {
    if (this.threadId !== thread.id) this.entered(thread.id);
    this.threadId = thread.id;
    this.composer.belongTo(thread.id);
    at("welcome").hidden = true;
  }

  // Messages of the user

  /** `stored` and `refused` are callbacks of the turn; `key` is stored with the draft; `attachments` are those of `input`. */
  send(input, { key, stored, refused, attachments = [] } = {}) {
    const provisional = { ...input, id: `provisional-${crypto.randomUUID()}`, type: "user_message", attachments };
    const how = { key, stored, refused, provisional, again: () => this.retry() };
    return this.threadId
      ? this.run("threads.add_user_message", { thread_id: this.threadId, input }, how)
      : this.run("threads.create", { input }, how);
  }

  /** Retry the answer to the message before this item, or to the last message. */
  async retry(item) {
    const all = this.items.all();
    const until = item ? all.findIndex((one) => one.id === item.id) : all.length;
    const message = all.slice(0, until).findLast((one) => one.type === "user_message");
    if (message) await this.#retryAfter(message.id);
  }

  async #retryAfter(messageId) {
    if (this.isBusy()) return;
    const opened = this.#opened;
    const replaced = this.items.last()?.id;
    this.items.removeAfter(messageId);
    const params = { thread_id: this.threadId, item_id: messageId };
    const how = { replaced, again: () => this.#retryAfter(messageId) };
    if (await this.run("threads.retry_after_item", params, how)) return;
    // The server replaces the old answer only when there is a new one.
    if (opened !== this.#opened) return;
    const ending = this.log.ending();
    await this.guarded(() => this.#read(params.thread_id, this.log.place()));
    if (opened !== this.#opened || this.#turn) return;
    this.log.ended(ending.text, ending.again && how.again, ending.isError);
    this.#endings.save(ending, { isMessage: true, replaced });
  }

  /** Return whether an answer is running; if so, show a notice. */
  isBusy() {
    if (this.#turn) this.log.showNotice(WAIT, { level: "info" });
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
      if (opened === this.#opened) this.log.showNotice(error.message);
      return undefined;
    }
  }
}
