// Inserts Markdown as markup, in this module only: the server parses and sanitises it.

import { copy, h, iconButton } from "./dom.js";
import { become } from "./morph.js";

const SECONDS_BETWEEN = 0.15;
const RESTS_FOR = 3;
const PATIENCE_MS = 15_000;
// Delimiters around the number of a source, which no keyboard can type.
const OPEN = "\uE000", CLOSE = "\uE001";

const policy = window.trustedTypes?.createPolicy("markdown", { createHTML: (html) => html }) ?? { createHTML: (html) => html };

const drawing = new WeakMap();

/** Resolves when all Markdown inside of an element is there. */
export function drawn(element) {
  return Promise.all([...element.querySelectorAll(".markdown")].map((text) => drawing.get(text)));
}

/** A text that may grow. Unchanged blocks are not touched, so that a long answer stays smooth. */
export class MarkdownView {
  #blocks = [];
  #wanted = null;
  #latest = null;
  #isWorking = false;
  #whole = Promise.resolve();

  constructor(drawSource = () => null) {
    this.element = h("div", { class: "markdown" });
    this.drawSource = drawSource;
  }

  /** Show this text soon: at most every 150 ms, and less often if it is long. Resolves when it is shown. */
  show(text, annotations = []) {
    this.#latest = this.#wanted = [text, annotations];
    if (!this.#isWorking) this.#whole = this.#work();
    drawing.set(this.element, this.#whole);
    return this.#whole;
  }

  async #work() {
    this.#isWorking = true;
    while (this.#wanted !== null) {
      const shown = this.#wanted;
      const text = withSources(...shown);
      this.#wanted = null;
      // Drawn without the server, because the first text would wait for the response.
      if (!text) {
        this.#put([]);
        continue;
      }
      const began = performance.now();
      try {
        this.#put(await render(text));
      } catch (error) {
        // A user may have had too much rendered for now.
        if (error.retryAfter) setTimeout(() => this.#latest === shown && this.show(...shown), 1000 * error.retryAfter);
        // Without the server, the text is shown as plain text.
        this.element.replaceChildren(h("p", { class: "plain", dir: "auto" }, text.replaceAll(/\uE000\d+\uE001/g, "")));
        this.#blocks = [];
      }
      const took = performance.now() - began;
      if (this.#wanted === null) await new Promise(requestAnimationFrame);
      else await new Promise((resolve) => setTimeout(resolve, Math.max(1000 * SECONDS_BETWEEN - took, RESTS_FOR * took)));
    }
    this.#isWorking = false;
  }

  #put(blocks) {
    blocks.forEach((html, place) => {
      if (this.#blocks[place] === html) return;
      const block = this.#drawn(html);
      if (place < this.element.children.length) become(this.element.children[place], block);
      else this.element.append(block);
    });
    while (this.element.children.length > blocks.length) this.element.lastElementChild.remove();
    this.#blocks = blocks;
  }

  #drawn(html) {
    const block = h("div", { class: "block" });
    block.innerHTML = policy.createHTML(html);
    for (const text of block.querySelectorAll("p, h3, h4, h5, h6, ul, ol, li, blockquote, table")) text.dir = "auto";
    for (const pre of block.querySelectorAll("pre")) frameCode(pre);
    for (const table of block.querySelectorAll("table")) {
      const frame = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" });
      table.replaceWith(frame);
      frame.append(table);
    }
    this.#placeSources(block);
    return block;
  }

  #placeSources(block) {
    const texts = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) if (texts.currentNode.data.includes(OPEN)) found.push(texts.currentNode);
    for (const text of found) {
      const pieces = text.data.split(/\uE000(\d+)\uE001/);
      text.replaceWith(...pieces.map((piece, place) => (place % 2 ? (this.drawSource(Number(piece)) ?? "") : piece)));
    }
  }
}

/** Insert a mark where it is not in a URL, breaks no emphasis or fence, and is no table cell of its own. */
function put(mark, letters, at) {
  const place = Math.min(at, letters.length);
  const before = letters.slice(Math.max(0, place - 2000), place).join("");
  const line = before.slice(before.lastIndexOf("\n") + 1);
  if (/^\s*(```|~~~)\s*$/.test(line)) letters.splice(place, 0, `\n\n${mark}\n\n`);
  else if (/^\s*\|.*\|$/.test(line)) letters.splice(place - 1, 0, mark);
  else letters.splice(place, 0, /[*_~`]$|:\/\/\S*$|www\.\S*$/.test(line) ? ` ${mark}` : mark);
}

/** The text with a mark where each source belongs; those without a place are only listed. */
function withSources(text, annotations) {
  const letters = [...text.replaceAll(OPEN, "").replaceAll(CLOSE, "")];
  const placed = annotations.map((annotation, number) => ({ at: annotation?.index, number })).filter(({ at }) => Number.isInteger(at));
  for (const { at, number } of placed.toSorted((a, b) => b.at - a.at || b.number - a.number)) {
    put(`${OPEN}${number}${CLOSE}`, letters, at);
  }
  return letters.join("");
}

/** How texts are sent to be rendered; another page may need a token. */
export const rendering = { fetch: (...asked) => fetch(...asked) };

async function render(text) {
  const response = await rendering.fetch(new URL("markdown", import.meta.url), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: text.toWellFormed?.() ?? text }),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (!response.ok) throw new Error(`Markdown: ${response.status}`);
  return (await response.json()).blocks;
}

function frameCode(pre) {
  const language = /language-([\w+#.-]+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "text";
  const button = iconButton("copy", "Copy the code", () => copy(pre.textContent, button));
  const frame = h("div", { class: "code" });
  pre.replaceWith(frame);
  // It scrolls, so it can be reached by the keyboard.
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", `Code, ${language}`);
  frame.append(h("div", { class: "code-head" }, h("span", {}, language), button), pre);
}
