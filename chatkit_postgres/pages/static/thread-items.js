// The items of the open conversation in their order, and their elements in the log.

import { applyUpdate, textOf } from "./updates.js";

export class ThreadItems {
  #items = new Map();
  #log;

  constructor(log) {
    this.#log = log;
  }

  clear() {
    this.#items.clear();
    this.#log.clear();
  }

  get(id) {
    return this.#items.get(id);
  }

  all() {
    return [...this.#items.values()];
  }

  /** The last item with content. */
  last() {
    return this.all().findLast((item) => item.type !== "end_of_turn" && (item.type !== "assistant_message" || textOf(item)));
  }

  put(item, isRunning) {
    this.#items.set(item.id, item);
    return this.#log.put(item, isRunning);
  }

  remove(id) {
    this.#items.delete(id);
    this.#log.remove(id);
  }

  removeAfter(id) {
    const ids = [...this.#items.keys()];
    for (const later of ids.slice(ids.indexOf(id) + 1)) this.remove(later);
  }

  update(id, update, isRunning) {
    const item = this.#items.get(id);
    if (!item) return;
    applyUpdate(item, update);
    this.#log.put(item, isRunning);
  }

  /** Show these items instead of those that are there. */
  async show(items) {
    this.clear();
    await Promise.all(items.map((item) => this.put(item, false)));
  }

  /** Insert older items; the visible ones stay in place, also if `change` alters the layout. */
  async prepend(items, change) {
    this.#items = new Map([...items.map((item) => [item.id, item]), ...this.#items]);
    await this.#log.prepend(items, change);
  }

  /** Make the newest items equal to those of the server. Unchanged ones are not drawn again. */
  refresh(items) {
    const ids = [...this.#items.keys()], listed = new Set(items.map((item) => item.id));
    const first = ids.findIndex((id) => listed.has(id));
    for (const id of ids.slice(Math.max(first, 0))) if (!listed.has(id)) this.remove(id);
    for (const item of items) if (isChanged(this.#items.get(item.id), item)) this.put(item, false);
  }
}

/** A message of the user never changes, except for the signatures of its files' URLs. */
const isChanged = (known, item) => !known || (item.type !== "user_message" && JSON.stringify(known) !== JSON.stringify(item));
