// The conversations of a user: a list in pages, by day, to be filtered, renamed, exported and deleted.

import { groupOf } from "./days.js";
import { ask } from "./dialogs.js";
import { announce, at, confirmOn, h, iconButton } from "./dom.js";
import { openMenu } from "./menu.js";
import { saveConversation } from "./saving.js";

const PAGE = 30, LARGEST_PAGE = 100, MOST_PAGES = 20;
const MARKS = { waiting: "waiting for you", running: "answering" };
export const UNTITLED = "New conversation";

export class Sidebar {
  #threads = [];
  #waiting = new Set();
  #running = new Set();
  #rows = new Map();
  #after = null;
  #asked = 0;
  #reading = 0;
  #marked = null;

  /** `client()` is the user's, `current()` the id of the open conversation; `left()` is called when it is deleted, `renamed(thread)` after a new title, `changed()` after both. */
  constructor({ client, current, left, renamed, changed, showNotice }) {
    Object.assign(this, { client, current, left, renamed, changed, showNotice });
    at("more-threads").addEventListener("click", () => this.#more(PAGE));
    at("filter").addEventListener("input", () => this.#filter());
  }

  /** Read the list again, from its beginning. */
  async load() {
    const asked = ++this.#asked;
    const limit = Math.max(PAGE, Math.min(this.#threads.length, LARGEST_PAGE));
    const [page, waiting, running] = await Promise.all([
      this.client().call("threads.list", { limit }),
      this.client().marked("waiting"),
      this.client().marked("running"),
    ]);
    // Another user may have been chosen since.
    if (asked !== this.#asked) return;
    const known = new Set(page.data.map((thread) => thread.id));
    // Conversations that have moved to the next page are still listed.
    const last = page.has_more ? page.data.at(-1).created_at : null;
    const older = this.#threads.filter((thread) => last !== null && thread.created_at <= last && !known.has(thread.id));
    this.#threads = [...page.data, ...older];
    this.#waiting = waiting;
    this.#running = running;
    if (!older.length) this.#after = page.has_more ? page.after : null;
    await this.#filter();
  }

  clear() {
    this.#threads = [];
    this.#waiting.clear();
    this.#running.clear();
    this.#rows.clear();
    this.#after = null;
    this.#asked++;
    at("filter").value = "";
    this.#draw();
  }

  /** The title of a conversation as far as it is known here. */
  titleOf(threadId) {
    return this.#threads.find((thread) => thread.id === threadId)?.title;
  }

  /** Mark the conversation that is open. */
  mark() {
    for (const link of at("threads").querySelectorAll("a")) {
      if (link.dataset.thread === this.current()) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const marked = at("threads").querySelector("[aria-current]");
    // Once: the user may scroll the list afterwards.
    if (marked && this.#marked !== this.current()) marked.scrollIntoView({ block: "nearest" });
    this.#marked = marked ? this.current() : null;
  }

  async #filter() {
    // The protocol has no search, so all titles are read.
    this.#draw();
    for (let page = 0; at("filter").value.trim() && this.#after && page < MOST_PAGES; page++) {
      if (!(await this.#more(LARGEST_PAGE))) return;
    }
  }

  /** Load the next page. False if another call is loading it, or the list has changed since. */
  async #more(limit) {
    const asked = this.#asked;
    if (this.#reading === asked) return false;
    this.#reading = asked;
    try {
      const page = await this.client().call("threads.list", { limit, after: this.#after });
      if (asked !== this.#asked) return false;
      const known = new Set(this.#threads.map((thread) => thread.id));
      this.#threads.push(...page.data.filter((thread) => !known.has(thread.id)));
      this.#after = page.has_more ? page.after : null;
      this.#draw();
      return true;
    } catch (error) {
      if (asked === this.#asked) this.showNotice(error.message);
      return false;
    } finally {
      if (this.#reading === asked) this.#reading = 0;
    }
  }

  #draw() {
    const wanted = at("filter").value.trim().toLocaleLowerCase();
    const found = this.#threads.filter((thread) => (thread.title ?? UNTITLED).toLocaleLowerCase().includes(wanted));
    this.#place(found);
    // Of a search, its hits in messages say whether there is anything.
    at("no-threads").hidden = found.length > 0 || wanted;
    at("more-threads").hidden = !this.#after;
    this.mark();
  }

  /** Unchanged rows are not touched, because the user may be about to click one, or have the focus there. */
  #place(threads) {
    const list = at("threads"), focused = document.activeElement;
    const held = list.contains(focused) && focused.closest("li")?.dataset.id;
    const groups = Map.groupBy(threads, (thread) => groupOf(new Date(thread.created_at)));
    for (const section of [...list.children]) if (!groups.has(section.dataset.group)) section.remove();
    let place = 0;
    for (const [name, members] of groups) {
      const section = [...list.children].find((one) => one.dataset.group === name) ?? group(name);
      if (list.children[place] !== section) list.insertBefore(section, list.children[place] ?? null);
      place++;
      putInOrder(section.querySelector("ul"), members.map((thread) => this.#row(thread)));
    }
    if (!held || focused === document.activeElement) return;
    (list.contains(focused) ? focused : this.#rows.get(held)?.querySelector("a"))?.focus({ preventScroll: true });
  }

  #row(thread) {
    const title = thread.title ?? UNTITLED;
    const mark = this.#waiting.has(thread.id) ? "waiting" : this.#running.has(thread.id) ? "running" : "";
    const known = this.#rows.get(thread.id);
    if (known?.dataset.title === title && known.dataset.mark === mark) return known;
    const button = iconButton("more", `Options of ${title}`, () => openMenu(button, this.entriesOf(thread, button)),
      { "aria-haspopup": "menu", "aria-expanded": "false" });
    const row = h("li", { data: { id: thread.id, title, mark } },
      h("a", { href: `#${thread.id}`, data: { thread: thread.id }, title, dir: "auto" },
        h("span", { class: "title" }, title), mark && h("span", { class: `mark ${mark}`, dir: "ltr" }, MARKS[mark])),
      button);
    this.#rows.set(thread.id, row);
    return row;
  }

  /** What can be done with a conversation, for a menu. `button` gets the focus back. */
  entriesOf(thread, button) {
    return [
      { name: "rename", label: "Rename", act: () => this.#rename(thread, button) },
      { name: "copy", label: "Copy link", act: () => this.#guarded(() => copyLink(thread, button)) },
      { name: "save", label: "Export", act: () => this.#guarded(() => saveConversation(this.client(), { ...thread, title: thread.title ?? UNTITLED })) },
      { name: "delete", label: "Delete", act: () => this.#delete(thread), isDestructive: true },
    ];
  }

  async #rename(thread, button) {
    const title = await ask({ title: "Rename this conversation", field: "Title", maxLength: 500, value: thread.title ?? "", yes: "Rename" });
    // The row, and its button, may be drawn anew.
    const focus = () => (button.isConnected ? button : this.#rows.get(thread.id)?.querySelector("button"))?.focus();
    focus();
    if (!title || title === thread.title) return;
    await this.#guarded(async () => {
      const { title: given } = await this.client().call("threads.update", { thread_id: thread.id, title });
      const known = this.#threads.find((one) => one.id === thread.id);
      if (known) known.title = given;
      this.renamed({ id: thread.id, title: given });
      this.#draw();
      focus();
      this.changed();
    });
  }

  async #delete(thread) {
    const answer = await ask({ title: "Delete this conversation?", text: `“${thread.title ?? UNTITLED}” goes for good, with its files.`, yes: "Delete", isDestructive: true });
    if (answer === null) return;
    await this.#guarded(async () => {
      await this.client().call("threads.delete", { thread_id: thread.id });
      this.#threads = this.#threads.filter((one) => one.id !== thread.id);
      this.#draw();
      if (thread.id === this.current()) this.left();
      at("new-thread").focus();
      this.changed();
    });
  }

  async #guarded(work) {
    try {
      await work();
    } catch (error) {
      this.showNotice(error.message);
    }
  }
}

function group(name) {
  return h("section", { data: { group: name } }, h("h2", {}, name), h("ul", {}));
}

function putInOrder(list, rows) {
  const staying = new Set(rows);
  for (const row of [...list.children]) if (!staying.has(row)) row.remove();
  rows.forEach((row, place) => list.children[place] !== row && list.insertBefore(row, list.children[place] ?? null));
}

async function copyLink(thread, button) {
  try {
    await navigator.clipboard.writeText(`${location.origin}${location.pathname}#${thread.id}`);
  } catch {
    throw new Error("This browser does not allow the page to copy.");
  }
  announce("Link copied");
  confirmOn(button, "Link copied", "more");
}
