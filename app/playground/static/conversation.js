// The conversation that is open, and the turn that is running in it.

import { ChatError } from "./client.js";
import { announce, at } from "./dom.js";
import { UNTITLED } from "./sidebar.js";
import { applyUpdate, textOf } from "./updates.js";

const PAGE = 40;
const NAME = "chatkit-postgres";

// What this page can do for an assistant that asks it to.
const CLIENT_TOOLS = {
  get_page_title: () => ({ title: document.title }),
};

export class Conversation {
  threadId = null;
  #items = new Map();
  #older = null;
  #turn = null;

  /** `client()` is who speaks; `listed()` is called when the list of conversations may have changed. */
  constructor({ client, log, composer, listed }) {
    Object.assign(this, { client, log, composer, listed });
  }

  // Which one

  async open(threadId) {
    this.stop();
    this.#turn = null;
    this.threadId = threadId;
    this.#items.clear();
    this.log.clear();
    this.log.clearNotices();
    announce("");
    at("welcome").hidden = Boolean(threadId);
    at("older").hidden = true;
    this.#setRunning(false);
    this.#showThread(null);
    if (threadId) await this.#guarded(() => this.#read(threadId));
    this.composer.text.focus();
  }

  showTitle(title) {
    at("title").textContent = title ?? UNTITLED;
    document.title = title ? `${title} – ${NAME}` : NAME;
  }

  async readOlder() {
    await this.#guarded(async () => {
      const params = { thread_id: this.threadId, order: "desc", limit: PAGE, after: this.#older };
      const items = this.#take(await this.client().call("items.list", params));
      this.#items = new Map([...items.map((item) => [item.id, item]), ...this.#items]);
      await this.log.prepend(items);
    });
  }

  #showThread(thread) {
    this.showTitle(thread?.title);
    const status = thread?.status?.type ?? "active";
    this.composer.close(status === "active" ? null : (thread.status.reason ?? `This conversation is ${status}.`));
  }

  async #read(threadId) {
    const [thread, page] = await Promise.all([
      this.client().call("threads.get_by_id", { thread_id: threadId }),
      this.client().call("items.list", { thread_id: threadId, order: "desc", limit: PAGE }),
    ]).catch((error) => {
      if (error.status === 404) throw new Error("There is no such conversation here. It may be somebody else's, or deleted.");
      throw error;
    });
    if (this.threadId !== threadId) return;
    this.#showThread(thread);
    const items = this.#take(page);
    this.#items = new Map(items.map((item) => [item.id, item]));
    this.log.clear();
    await Promise.all(items.map((item) => this.log.put(item)));
    this.log.toEnd();
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

  /** Run an operation that streams, to its end. True if it ended well. */
  async #run(type, params, { key = crypto.randomUUID(), stored = () => {}, refused } = {}) {
    if (this.#turn) return false;
    const turn = { controller: new AbortController(), open: new Set(), isStored: false, hasFailed: false };
    this.#turn = turn;
    this.#setRunning(true);
    this.log.clearNotices();
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
      if (error.name === "AbortError") this.log.ended("Stopped.", this.#lastSaid() && (() => this.retry()));
      else if (error instanceof ChatError) {
        // What was written is in its field again, to be sent from there.
        const canRepeat = !refused && (error.status === 429 || error.status >= 500);
        this.#fail(error.message, canRepeat && (() => this.#run(type, params)));
        refused?.();
      } else this.#fail("The connection was lost.", () => this.#run(type, params, { key, stored, refused }));
    } finally {
      if (this.#turn === turn) {
        this.#turn = null;
        for (const id of turn.open) if (this.#items.has(id)) this.log.put(this.#items.get(id));
        this.log.progress(null);
        this.#setRunning(false);
      }
    }
    this.listed();
    if (turn.hasFailed) return false;
    const last = [...this.#items.values()].findLast((item) => item.type !== "end_of_turn");
    if (last) announce(`The assistant says: ${textOf(last).slice(0, 400) || last.type.replaceAll("_", " ")}`);
    if (last?.type === "client_tool_call" && last.status === "pending") await this.callTool(last);
    return true;
  }

  #setRunning(isRunning) {
    at("send").hidden = isRunning;
    at("stop").hidden = !isRunning;
    this.composer.allow(!isRunning);
  }

  #fail(message, again) {
    announce(message);
    this.log.ended(message, again);
  }

  #handle(event, turn) {
    switch (event.type) {
      case "thread.created":
        this.threadId = event.thread.id;
        history.pushState(null, "", `#${event.thread.id}`);
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
        this.#items.delete(event.item_id);
        return this.log.remove(event.item_id);
      case "progress_update":
        return this.log.progress(event.text);
      case "notice":
        return this.log.notice(event);
      case "client_effect":
        return this.log.notice({ title: `Effect ${event.name}`, message: JSON.stringify(event.data) });
      case "error":
        turn.hasFailed = true;
        return this.#fail(event.message ?? "The answer could not be finished.", event.allow_retry && this.#lastSaid() && (() => this.retry()));
    }
    return undefined;
  }

  #put(item, isRunning) {
    this.#items.set(item.id, item);
    return this.log.put(item, isRunning);
  }

  #lastSaid() {
    return [...this.#items.values()].findLast((item) => item.type === "user_message");
  }

  // What people do

  send(input, ends) {
    this.log.toEnd();
    return this.threadId
      ? this.#run("threads.add_user_message", { thread_id: this.threadId, input }, ends)
      : this.#run("threads.create", { input }, ends);
  }

  /** Answer the message before this item once more, or the last message. */
  async retry(item) {
    if (this.#turn) return;
    const all = [...this.#items.values()];
    const until = item ? all.findIndex((one) => one.id === item.id) : all.length;
    const said = all.slice(0, until).findLast((one) => one.type === "user_message");
    if (!said) return;
    const threadId = this.threadId;
    for (const old of all.slice(all.indexOf(said) + 1)) {
      this.#items.delete(old.id);
      this.log.remove(old.id);
    }
    const isAnswered = await this.#run("threads.retry_after_item", { thread_id: threadId, item_id: said.id });
    // The server keeps the old answer until there is a new one: without a new one it is still there.
    if (!isAnswered && this.threadId === threadId) {
      const ending = this.log.ending();
      await this.#guarded(() => this.#read(threadId));
      this.log.ended(...ending);
    }
  }

  async rate(item, kind) {
    return this.#guarded(async () => {
      await this.client().call("items.feedback", { thread_id: this.threadId, item_ids: [item.id], kind });
      announce("Thank you for the feedback.");
      return true;
    });
  }

  async act(item, action, values, element) {
    const payload = values ? { ...action.payload, ...values } : action.payload;
    if (action.handler === "client") {
      this.log.notice({ title: `For the application: ${action.type}`, message: JSON.stringify(payload ?? {}) });
      return;
    }
    // One at a time, so that a double click is one action.
    if (element.dataset.isActing || this.#turn) return;
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
    const { updated_item: updated } = await this.client().call("threads.sync_custom_action", params);
    if (updated) this.#put(updated, false);
  }

  async answer(item, submission) {
    const isStored = () => this.#put({ ...item, status: submission.status, inputs: withAnswers(item, submission) }, false);
    await this.#run("threads.add_structured_input", { thread_id: this.threadId, item_id: item.id, input: submission }, { stored: isStored });
  }

  async callTool(item) {
    const tool = CLIENT_TOOLS[item.name];
    const result = tool ? tool(item.arguments) : { error: `This page has no tool ${item.name}.` };
    // The stream tells the answer, and not the call again.
    const stored = () => this.#put({ ...item, status: "completed", output: result }, false);
    await this.#run("threads.add_client_tool_output", { thread_id: this.threadId, result }, { stored });
  }

  async #guarded(work) {
    try {
      return await work();
    } catch (error) {
      this.log.notice({ level: "danger", message: error.message });
      return undefined;
    }
  }
}

const withAnswers = (item, { answers }) => item.inputs.map((question) => ({ ...question, answer: answers[question.id] ?? null }));
