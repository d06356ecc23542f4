// Draws the items of a conversation, one element for each.

import { copy, h, icon, iconButton } from "./dom.js";
import { drawn, MarkdownView } from "./markdown.js";
import { drawQuestions } from "./questions.js";
import { drawSource, drawTask, drawWorkflow, isWebAddress } from "./tasks.js";
import { textOf } from "./updates.js";
import { drawWidget } from "./widgets.js";

const FOLDED_CHARACTERS = 1500, FOLDED_LINES = 16;
const isTouched = matchMedia("(hover: none)").matches;

/** `handlers` are called when a part of an item is used: act, answer, callTool, openFile, rate, rated, retry, quote, openEntity. */
export class ItemView {
  #parts = [];
  #picture = null;

  constructor(item, handlers) {
    this.handlers = handlers;
    // A tap gives it the focus, which shows its actions where nothing hovers.
    this.element = h("li", { class: `item ${item.type}`, data: { id: item.id }, ...(isTouched && { tabindex: "-1" }) });
  }

  /** Draw an item in its current state; `isRunning` while its turn runs. Resolves when it is complete. */
  async show(item, isRunning) {
    this.item = item;
    const shown = (this.shown = Symbol("shown"));
    this.element.setAttribute("aria-busy", "true");
    if (item.type === "assistant_message") await this.#showAnswer(item, isRunning);
    else keepingFocus(this.element, () => this.element.replaceChildren(...[DRAWINGS[item.type]?.(item, this, isRunning) ?? []].flat()));
    await drawn(this.element);
    // Not before all text is drawn, and not for a state that a newer one has replaced.
    if (shown === this.shown) this.element.setAttribute("aria-busy", String(isRunning));
  }

  /** The text changes many times a second, the elements around it a few times in a turn. */
  async #showAnswer(item, isRunning) {
    if (!this.#parts.length) this.#parts = [h("h2", { class: "hidden" }, "The assistant says:"), h("div", { class: "around" })];
    const [name, around, ...views] = this.#parts;
    const shown = item.content.map((part, place) => {
      const view = views[place] ?? new MarkdownView();
      if (!views[place]) this.#parts.push(view);
      view.drawSource = (number) => mark(part.annotations?.[number]?.source, number, this.handlers);
      return view.show(part.text, part.annotations ?? []);
    });
    const texts = this.#parts.slice(2).map((view) => view.element);
    if (this.element.children.length !== texts.length + 2) this.element.replaceChildren(name, ...texts, around);
    const sources = item.content.flatMap((part) => part.annotations ?? []).filter(Boolean).map((annotation) => annotation.source);
    const current = this.shown;
    if (isRunning) this.#showAround(around, sources, true);
    await Promise.all(shown);
    await drawn(this.element);
    // What can be done with an answer comes after its last word.
    if (!isRunning && current === this.shown) this.#showAround(around, sources, false);
  }

  #showAround(around, sources, isRunning) {
    const state = `${isRunning} ${sources.length}`;
    if (around.dataset.state === state) return;
    around.dataset.state = state;
    around.replaceChildren(...[
      // Visible until the first text is drawn (items.css).
      isRunning && typing(),
      sources.length > 0 && sourceList(sources),
      !isRunning && this.#tools(),
    ].filter(Boolean));
  }

  /** Reuse one element, and show each preview until the next one has loaded, so that the layout does not jump. */
  picture(url) {
    if (!this.#picture) this.#picture = h("img", { src: url, alt: "Generated image", data: { next: url } });
    else if (this.#picture.dataset.next !== url) {
      this.#picture.dataset.next = url;
      const next = h("img", { src: url });
      next.decode().catch(() => {}).then(() => this.#picture.dataset.next === url && (this.#picture.src = url));
    }
    return this.#picture;
  }

  #tools() {
    const { rate, rated, quote, retry } = this.handlers;
    const copyButton = iconButton("copy", "Copy the answer", () => copy(textOf(this.item), copyButton));
    const thumbs = [["thumb-up", "Good answer", "positive"], ["thumb-down", "Bad answer", "negative"]].map(([name, label, kind]) =>
      iconButton(name, label, async () => {
        if (!(await rate(this.item, kind))) return;
        thumbs.forEach((thumb) => thumb.setAttribute("aria-pressed", String(thumb.dataset.kind === kind)));
      }, { "aria-pressed": String(rated(this.item) === kind), "data-kind": kind }));
    return h("div", { class: "tools", role: "group", "aria-label": "About this answer" }, copyButton, thumbs,
      iconButton("quote", "Quote", () => quote(selectionIn(this.element) || readable(this.element))),
      iconButton("retry", "Try again", () => retry(this.item), { class: "icon-button retry" }));
  }
}

const DRAWINGS = {
  user_message: (item, view) => [
    h("h2", { class: "hidden" }, "You said:"),
    item.quoted_text && h("blockquote", { class: "quoted", dir: "auto" }, item.quoted_text),
    item.attachments.length > 0 && h("ul", { class: "attachments" }, item.attachments.map((file) => h("li", {}, drawAttachment(file, view.handlers)))),
    ...(textOf(item) ? drawBubble(item) : []),
  ].filter(Boolean),
  widget: (item, view, isRunning) => {
    const tools = h("div", { class: "tools" });
    if (!isRunning) tools.append(iconButton("retry", "Try again", () => view.handlers.retry(item), { class: "icon-button retry" }));
    if (item.copy_text) {
      const button = iconButton("copy", "Copy", () => copy(item.copy_text, button));
      tools.prepend(button);
    }
    return [drawWidget(item.widget, (action, values) => view.handlers.act(item, action, values, view.element)), tools];
  },
  client_tool_call: (item, view, isRunning) =>
    h("div", { class: "task" }, icon("spark"),
      h("p", { class: "task-title" }, `${item.name.replaceAll("_", " ")}: `, item.status === "pending" ? "asked of this page" : "done",
        item.status === "pending" && !isRunning && [" ", h("button", { type: "button", onclick: () => view.handlers.callTool(item) }, "Answer it")])),
  generated_image: (item, view, isRunning) =>
    h("figure", {},
      item.image ? h("a", { href: item.image.url, target: "_blank", rel: "noopener" }, view.picture(item.image.url)) : isRunning && typing(),
      isRunning && h("progress", { max: 1, value: item.progress, "aria-label": "Drawing" })),
  structured_input: (item, view) => drawQuestions(item, (submission) => view.handlers.answer(item, submission)),
  task: (item) => drawTask(item.task),
  workflow: (item, view, isRunning) => drawWorkflow(item, isRunning, isRunning ? view.element.querySelector("details")?.open : undefined),
};

/** The visible text of an answer's element. */
export function readable(element) {
  return [...element.querySelectorAll(":scope > .markdown")].map((text) => text.innerText).join("\n").trim();
}

/** The user's text, folded if it is long: whoever pasted a document knows its content. */
function drawBubble(item) {
  const text = textOf(item);
  const bubble = h("p", { class: "bubble", dir: "auto" },
    item.content.map((part) => (part.type === "input_tag" ? h("span", { class: "tag" }, `@${part.text}`) : part.text)));
  const copyButton = iconButton("copy", "Copy your message", () => copy(text, copyButton));
  const tools = h("div", { class: "tools", role: "group", "aria-label": "About this message" }, copyButton);
  if (text.length <= FOLDED_CHARACTERS && text.split("\n").length <= FOLDED_LINES) return [bubble, tools];
  bubble.classList.add("folded");
  const fold = h("button", { type: "button", class: "fold", "aria-expanded": "false", onclick: () => {
    const isFolded = bubble.classList.toggle("folded");
    fold.textContent = isFolded ? "Show all" : "Show less";
    fold.setAttribute("aria-expanded", String(!isFolded));
  } }, "Show all");
  return [bubble, fold, tools];
}

function drawAttachment(file, { openFile }) {
  const look = file.type === "image" ? h("img", { src: file.preview_url, alt: "", class: "preview", loading: "lazy" }) : h("span", { class: "preview" }, icon("file"));
  return h("button", { type: "button", class: "file", title: `Open ${file.name}`, onclick: () => openFile(file) }, look, h("span", { class: "file-name", dir: "auto" }, file.name));
}

export function typing() {
  return h("p", { class: "typing", role: "img", "aria-label": "The assistant is answering" }, h("span"), h("span"), h("span"));
}

/** The mark of a source in the text. */
function mark(source, number, handlers) {
  if (!source) return null;
  if (source.type === "url" && isWebAddress(source.url)) {
    return h("sup", { class: "cite" }, h("a", { href: source.url, target: "_blank", rel: "noopener noreferrer", title: source.title }, `[${number + 1}]`));
  }
  if (source.type !== "entity") return h("sup", { class: "cite", title: source.title }, `[${number + 1}]`);
  const label = source.inline_label ?? source.label ?? source.title;
  if (!source.interactive) return h("span", { class: "entity", title: source.title }, label);
  return h("button", { type: "button", class: "entity", title: source.title, data: { source: number }, onclick: () => handlers.openEntity(source) }, label);
}

function sourceList(sources) {
  return h("div", { class: "sources" }, h("p", { class: "caption" }, "Sources"),
    h("ol", {}, sources.map((source) => h("li", {}, drawSource(source)))));
}

function selectionIn(element) {
  const selection = getSelection();
  return selection.rangeCount && element.contains(selection.getRangeAt(0).commonAncestorContainer) ? selection.toString().trim() : "";
}

/** Preserve the focus and the typed text when an element is drawn again. */
function keepingFocus(element, redraw) {
  const typed = [...element.querySelectorAll("input, select, textarea")].filter(isChanged);
  const stops = () => [...element.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")];
  const focused = document.activeElement;
  const place = stops().indexOf(focused);
  const wasInForm = focused?.closest("form") !== null;
  redraw();
  for (const old of typed.filter(({ dataset }) => dataset.name !== undefined)) {
    const now = [...element.querySelectorAll(old.localName)].find((one) => one.dataset.name === old.dataset.name && one.type === old.type && one.type !== "radio");
    if (now) Object.assign(now, old.type === "checkbox" ? { checked: old.checked } : { value: old.value });
  }
  // A form that was sent has no input left.
  if (place < 0 || element.contains(document.activeElement) || (wasInForm && !element.querySelector("form"))) return;
  stops().at(Math.min(place, stops().length - 1))?.focus();
}

function isChanged(control) {
  if (control.type === "checkbox") return control.checked !== control.defaultChecked;
  if (control.localName === "select") return [...control.options].some((option) => option.selected !== option.defaultSelected);
  return control.value !== control.defaultValue;
}
