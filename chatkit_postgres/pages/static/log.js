// The list of items, which stays scrolled to its end while it grows, unless the user has scrolled up.

import { at, h, icon, iconButton } from "./dom.js";
import { ItemView, readable } from "./items.js";
import { drawn, MarkdownView } from "./markdown.js";

const NEAR_END = 80;

export class Log {
  #views = new Map();
  #list = at("items");
  #frame = at("log");
  #follows = true;
  #ending = { text: null };

  constructor(handlers) {
    this.handlers = handlers;
    const sizes = new ResizeObserver(() => this.#follows && this.#views.size > 0 && this.toEnd());
    // Observe its content, including notices, and its own size, which a growing text field reduces.
    for (const element of [this.#frame.firstElementChild, this.#frame]) sizes.observe(element);
    let top = 0, height = 0;
    this.#frame.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight } = this.#frame;
      const isAtEnd = this.#isAtEnd();
      // A list that grows or becomes shorter also scrolls, without the user scrolling up.
      const isByUser = scrollTop < top && scrollHeight >= height;
      if (isAtEnd || isByUser) this.#follows = isAtEnd;
      [top, height] = [scrollTop, scrollHeight];
      this.#showWhere();
    });
    // When a text is unfolded, its beginning stays in place.
    this.#list.addEventListener("click", ({ target }) => {
      if (!target.closest("[aria-expanded], summary")) return;
      this.#follows = false;
      requestAnimationFrame(() => this.#showWhere());
    });
    at("to-end").addEventListener("click", () => this.toEnd());
  }

  #isAtEnd() {
    return this.#frame.scrollHeight - this.#frame.scrollTop - this.#frame.clientHeight < NEAR_END;
  }

  #showWhere() {
    at("to-end").hidden = this.#follows || !this.#views.size || this.#isAtEnd();
  }

  toEnd() {
    this.#follows = true;
    this.#frame.scrollTop = this.#frame.scrollHeight;
  }

  toStart() {
    this.#frame.scrollTop = 0;
  }

  /** The scroll position: {id, top} of the item at the upper edge; null at the end. */
  place() {
    if (this.#follows) return null;
    const edge = this.#frame.getBoundingClientRect().top;
    const first = [...this.#list.children].find((element) => element.getBoundingClientRect().bottom > edge);
    return first ? { id: first.dataset.id, top: first.getBoundingClientRect().top - edge } : null;
  }

  /** Restore a scroll position, or scroll to the end if its item does not exist. */
  toPlace(place) {
    const element = place && this.#views.get(place.id)?.element;
    if (!element) {
      this.toEnd();
      return;
    }
    this.#follows = false;
    this.#frame.scrollTop += element.getBoundingClientRect().top - this.#frame.getBoundingClientRect().top - place.top;
    this.#showWhere();
  }

  /** Scroll to an item, and mark it for a moment. */
  showItem(id) {
    const element = this.#views.get(id)?.element;
    if (!element) return;
    this.#follows = false;
    element.scrollIntoView({ block: "center" });
    element.classList.remove("pointed");
    // So that the animation begins again.
    void element.offsetWidth;
    element.classList.add("pointed");
    this.#showWhere();
  }

  clear() {
    this.#follows = true;
    // A new map for each conversation, so that pending updates of the previous one find no element.
    this.#views = new Map();
    this.#list.replaceChildren();
    at("to-end").hidden = true;
    this.ended(null);
    this.progress(null);
  }

  /** Show what the user has just said, wherever the list was scrolled to. */
  putOwn(item) {
    this.put(item, true);
    this.toEnd();
  }

  put(item, isRunning = false) {
    if (item.type === "end_of_turn") return undefined;
    let view = this.#views.get(item.id);
    if (!view) {
      view = new ItemView(item, this.handlers);
      this.#views.set(item.id, view);
      this.#list.append(view.element);
    }
    return view.show(item, isRunning);
  }

  /** Replace a provisional item with the stored one. */
  rename(id, item) {
    const view = this.#views.get(id);
    if (!view) return;
    if (this.#views.has(item.id)) {
      this.remove(id);
      return;
    }
    this.#views.delete(id);
    this.#views.set(item.id, view);
    view.element.dataset.id = item.id;
  }

  /** Insert older items above the others; the visible ones stay in place, also if `change` alters the layout. */
  async prepend(items, change) {
    const views = items.filter((item) => item.type !== "end_of_turn").map((item) => [item, new ItemView(item, this.handlers)]);
    const there = this.#views;
    await Promise.all(views.map(([item, view]) => view.show(item, false)));
    if (there !== this.#views) return;
    this.#follows = false;
    const before = this.#frame.scrollHeight;
    change();
    for (const [item, view] of views) this.#views.set(item.id, view);
    this.#list.prepend(...views.map(([, view]) => view.element));
    this.#frame.scrollTop += this.#frame.scrollHeight - before;
  }

  remove(id) {
    this.#views.get(id)?.element.remove();
    this.#views.delete(id);
  }

  /** The visible text of an item, without Markdown syntax. */
  async visibleText(id) {
    const element = this.#views.get(id)?.element;
    if (!element) return "";
    await drawn(element);
    return readable(element);
  }

  /** What the assistant is doing now, or null. */
  progress(text) {
    at("progress").hidden = !text;
    at("progress").textContent = text ?? "";
  }

  /** How the last turn ended, if it did not end well; `again` is what a button offers. */
  ended(text, again, isError = false) {
    this.#ending = { text, again, isError };
    const line = at("ended");
    line.hidden = !text;
    line.classList.toggle("failed", isError);
    line.replaceChildren(...(text ? [isError && icon("alert"), h("span", {}, text)].filter(Boolean) : []));
    if (again) line.append(" ", h("button", { type: "button", onclick: again }, "Try again"));
    // In an empty conversation, a notice is below the proposed prompts.
    if (text && !this.#views.size) this.toEnd();
  }

  ending() {
    return this.#ending;
  }

  /** Show a text of the page or the server as plain text; an assistant's notice may be Markdown. */
  showNotice(message, { level = "danger", title } = {}) {
    this.#box(level, title, message, h("span", {}, message));
  }

  showAssistantNotice({ level, title, message }) {
    const view = new MarkdownView();
    this.#box(level, title, message, view.element);
    view.show(message);
  }

  #box(level, title, message, content) {
    const text = [title, message].filter(Boolean).join(": ");
    // A repeated notice is shown once.
    this.removeNotice(text);
    const box = h("div", { class: `notice ${level}`, data: { text }, role: level === "info" ? "status" : "alert" },
      icon(level === "info" ? "info" : "alert"),
      h("div", {}, title && h("strong", {}, title, " "), content),
      iconButton("close", "Dismiss", () => box.remove()));
    at("notices").append(box);
    box.scrollIntoView({ block: "nearest" });
  }

  /** Remove a notice that no longer applies. */
  removeNotice(text) {
    for (const box of [...at("notices").children]) if (box.dataset.text === text) box.remove();
  }

  clearNotices() {
    at("notices").replaceChildren();
  }
}
