// The list of items: kept at its end while it grows, unless somebody reads further up.

import { at, h, iconButton } from "./dom.js";
import { ItemView } from "./items.js";
import { MarkdownView } from "./markdown.js";

const NEAR_END = 80;

export class Log {
  #views = new Map();
  #list = at("items");
  #frame = at("log");
  #follows = true;
  #ending = [null];

  constructor(handlers) {
    this.handlers = handlers;
    new ResizeObserver(() => this.#follows && this.toEnd()).observe(this.#list);
    let top = 0;
    this.#frame.addEventListener("scroll", () => {
      const isAtEnd = this.#frame.scrollHeight - this.#frame.scrollTop - this.#frame.clientHeight < NEAR_END;
      // A text that grew is not somebody who scrolled up.
      if (isAtEnd || this.#frame.scrollTop < top) this.#follows = isAtEnd;
      top = this.#frame.scrollTop;
      at("to-end").hidden = this.#follows;
    });
    at("to-end").addEventListener("click", () => this.toEnd());
  }

  toEnd() {
    this.#follows = true;
    this.#frame.scrollTop = this.#frame.scrollHeight;
  }

  clear() {
    this.#views.clear();
    this.#list.replaceChildren();
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

  /** Older items, above those that are there; what is being read stays where it is. */
  async prepend(items) {
    const before = this.#frame.scrollHeight;
    this.#follows = false;
    const first = this.#list.firstChild;
    const shown = items.filter((item) => item.type !== "end_of_turn").map((item) => {
      const view = new ItemView(item, this.handlers);
      this.#views.set(item.id, view);
      this.#list.insertBefore(view.element, first);
      return view.show(item, false);
    });
    await Promise.all(shown);
    this.#frame.scrollTop += this.#frame.scrollHeight - before;
  }

  remove(id) {
    this.#views.get(id)?.element.remove();
    this.#views.delete(id);
  }

  /** What the assistant is doing now, or null. */
  progress(text) {
    at("progress").hidden = !text;
    at("progress").textContent = text ?? "";
  }

  /** How the last turn ended, if it did not end well; `again` is what a button offers. */
  ended(text, again) {
    this.#ending = [text, again];
    const line = at("ended");
    line.hidden = !text;
    line.replaceChildren(...(text ? [h("span", {}, text)] : []));
    if (again) line.append(" ", h("button", { type: "button", onclick: again }, "Try again"));
  }

  ending() {
    return this.#ending;
  }

  notice({ level = "info", title, message }) {
    const view = new MarkdownView();
    const box = h("div", { class: `notice ${level}`, role: level === "info" ? "status" : "alert" },
      h("div", {}, title && h("strong", {}, title, " "), view.element),
      iconButton("close", "Dismiss", () => box.remove()));
    at("notices").append(box);
    view.show(message);
  }

  clearNotices() {
    at("notices").replaceChildren();
  }
}
