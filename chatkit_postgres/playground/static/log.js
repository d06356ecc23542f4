// The list of items: kept at its end while it grows, unless somebody reads further up.

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
    // What is in it, notices included, and the room it has, which a growing field takes from it.
    for (const element of [this.#frame.firstElementChild, this.#frame]) sizes.observe(element);
    let top = 0;
    this.#frame.addEventListener("scroll", () => {
      const isAtEnd = this.#isAtEnd();
      // A text that grew is not somebody who scrolled up.
      if (isAtEnd || this.#frame.scrollTop < top) this.#follows = isAtEnd;
      top = this.#frame.scrollTop;
      this.#showWhere();
    });
    // What somebody unfolds is gone on with where it was folded.
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

  /** Where somebody is reading: {id, top} of the item at the upper edge; null at the end. */
  place() {
    if (this.#follows) return null;
    const edge = this.#frame.getBoundingClientRect().top;
    const first = [...this.#list.children].find((element) => element.getBoundingClientRect().bottom > edge);
    return first ? { id: first.dataset.id, top: first.getBoundingClientRect().top - edge } : null;
  }

  /** Go back to where somebody was reading, or to the end if that item is not there. */
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

  clear() {
    this.#follows = true;
    // A map of its own for each conversation: what was on its way to the last one sees that it is gone.
    this.#views = new Map();
    this.#list.replaceChildren();
    at("to-end").hidden = true;
    this.ended(null);
    this.progress(null);
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

  /** An item that was shown before the server had it is this one. */
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

  /** Older items, above those that are there; what is being read stays where it is, whatever `change` does as well. */
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

  /** The text of an item as it is read, without the marks it is written with. */
  async said(id) {
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
    // What is told where nothing has been said yet stands below all that is proposed.
    if (text && !this.#views.size) this.toEnd();
  }

  ending() {
    return this.#ending;
  }

  /** Words of ours or of the server, which are text; those of an assistant's notice may be Markdown. */
  tell(message, { level = "danger", title } = {}) {
    this.#box(level, title, message, h("span", {}, message));
  }

  notice({ level, title, message }) {
    const view = new MarkdownView();
    this.#box(level, title, message, view.element);
    view.show(message);
  }

  #box(level, title, message, content) {
    const says = [title, message].filter(Boolean).join(": ");
    // Said once more, it stands there once.
    this.untell(says);
    const box = h("div", { class: `notice ${level}`, data: { says }, role: level === "info" ? "status" : "alert" },
      h("div", {}, title && h("strong", {}, title, " "), content),
      iconButton("close", "Dismiss", () => box.remove()));
    at("notices").append(box);
    box.scrollIntoView({ block: "nearest" });
  }

  /** It is no longer true. */
  untell(message) {
    for (const box of [...at("notices").children]) if (box.dataset.says === message) box.remove();
  }

  clearNotices() {
    at("notices").replaceChildren();
  }
}
