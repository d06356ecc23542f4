// The conversations of a user: a list in pages, to be filtered, renamed and deleted.

import { at, h, iconButton } from "./dom.js";
import { ask } from "./dialogs.js";

const PAGE = 30, LARGEST_PAGE = 100, MOST_PAGES = 20;
export const UNTITLED = "New conversation";

export class Sidebar {
  #threads = [];
  #waiting = new Set();
  #rows = new Map();
  #after = null;
  #asked = 0;
  #isRenaming = false;
  #reading = 0;

  /** `client()` is the user's, `current()` the id of the open conversation; `left()` is called when it is deleted, `renamed(thread)` after a new title. */
  constructor({ client, current, left, renamed, tell }) {
    Object.assign(this, { client, current, left, renamed, tell });
    at("more-threads").addEventListener("click", () => this.#more(PAGE));
    at("filter").addEventListener("input", () => this.#filter());
  }

  /** Read the list again, from its beginning. */
  async load() {
    const asked = ++this.#asked;
    const limit = Math.max(PAGE, Math.min(this.#threads.length, LARGEST_PAGE));
    const [page, waiting] = await Promise.all([this.client().call("threads.list", { limit }), this.client().waiting()]);
    // Another user may have been chosen since.
    if (asked !== this.#asked) return;
    const known = new Set(page.data.map((thread) => thread.id));
    // Conversations that have moved to the next page are still listed.
    const last = page.has_more ? page.data.at(-1).created_at : null;
    const older = this.#threads.filter((thread) => last !== null && thread.created_at <= last && !known.has(thread.id));
    this.#threads = [...page.data, ...older];
    this.#waiting = waiting;
    if (!older.length) this.#after = page.has_more ? page.after : null;
    await this.#filter();
  }

  clear() {
    this.#threads = [];
    this.#waiting.clear();
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
      if (asked === this.#asked) this.tell(error.message);
      return false;
    } finally {
      if (this.#reading === asked) this.#reading = 0;
    }
  }

  #draw() {
    // Not while the user is typing.
    if (this.#isRenaming) return;
    const wanted = at("filter").value.trim().toLocaleLowerCase();
    const found = this.#threads.filter((thread) => (thread.title ?? UNTITLED).toLocaleLowerCase().includes(wanted));
    this.#place(found.map((thread) => this.#row(thread)));
    at("no-threads").hidden = found.length > 0;
    at("no-threads").textContent = wanted ? `No title has “${wanted}” in it.` : "No conversations yet.";
    at("more-threads").hidden = !this.#after;
    this.mark();
  }

  /** Unchanged rows are not touched, because the user may be about to click one, or have the focus there. */
  #place(rows) {
    const list = at("threads"), staying = new Set(rows), focused = document.activeElement;
    const held = list.contains(focused) && focused.closest("li").dataset.id;
    for (const row of [...list.children]) if (!staying.has(row)) row.remove();
    rows.forEach((row, place) => list.children[place] !== row && list.insertBefore(row, list.children[place] ?? null));
    if (!held || focused === document.activeElement) return;
    (list.contains(focused) ? focused : this.#rows.get(held)?.querySelector("a"))?.focus({ preventScroll: true });
  }

  #row(thread) {
    const title = thread.title ?? UNTITLED;
    const waits = this.#waiting.has(thread.id) ? "waiting for you" : "";
    const known = this.#rows.get(thread.id);
    if (known?.dataset.title === title && known.dataset.waits === waits) return known;
    const row = h("li", { data: { id: thread.id, title, waits } },
      h("a", { href: `#${thread.id}`, data: { thread: thread.id }, title, dir: "auto" },
        h("span", { class: "title" }, title), ...(waits ? [h("span", { class: "waits", dir: "ltr" }, waits)] : [])),
      iconButton("rename", `Rename ${title}`, () => this.#rename(row, thread)),
      iconButton("delete", `Delete ${title}`, () => this.#delete(thread)));
    this.#rows.set(thread.id, row);
    return row;
  }

  #rename(row, thread) {
    const input = h("input", { value: thread.title ?? "", "aria-label": "Title", maxlength: 500, dir: "auto" });
    const end = async (isWanted, isByKeyboard) => {
      if (!this.#isRenaming) return;
      this.#isRenaming = false;
      // Only this row, so that rows under the pointer stay in place.
      row.replaceWith(this.#row({ ...thread, title: (isWanted && input.value.trim()) || thread.title }));
      const focus = () => isByKeyboard && at("threads").querySelector(`[data-thread="${CSS.escape(thread.id)}"]`)?.focus();
      focus();
      const title = input.value.trim();
      if (isWanted && title && title !== thread.title) {
        try {
          const { title: given } = await this.client().call("threads.update", { thread_id: thread.id, title });
          const known = this.#threads.find((one) => one.id === thread.id);
          if (known) known.title = given;
          this.renamed({ id: thread.id, title: given });
        } catch (error) {
          this.tell(error.message);
        }
      }
      const hasFocus = document.activeElement?.dataset.thread === thread.id;
      this.#draw();
      if (hasFocus) focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true, true);
      if (event.key === "Escape") {
        event.stopPropagation();
        end(false, true);
      }
    });
    input.addEventListener("blur", () => end(true, false));
    row.replaceChildren(input);
    this.#rows.delete(thread.id);
    this.#isRenaming = true;
    input.focus();
    input.select();
  }

  async #delete(thread) {
    const answer = await ask({ title: "Delete this conversation?", text: `“${thread.title ?? UNTITLED}” goes for good, with its files.`, yes: "Delete", isDestructive: true });
    if (answer === null) return;
    try {
      await this.client().call("threads.delete", { thread_id: thread.id });
      this.#threads = this.#threads.filter((one) => one.id !== thread.id);
      this.#draw();
      if (thread.id === this.current()) this.left();
      at("new-thread").focus();
    } catch (error) {
      this.tell(error.message);
    }
  }
}
