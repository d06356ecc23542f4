// Finds messages of the user's conversations by their words, while the user types.

import { at, h } from "./dom.js";

const WAIT_MS = 250;
/** Of Markdown: what stands around words, and before headings. */
const MARKUP = /(^|\s)#{1,6}(?=\s)|[`*~]+/g;
/** The lines of a table, between its cells and under its head. */
const RULES = /\s*\|[\s:|-]*/g;
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };

export class Search {
  #after = null;
  #asked = 0;
  #timer = 0;

  /** `client()` is the user's; `chosen(threadId, itemId)` is called with what the user opens. */
  constructor({ client, chosen, showNotice }) {
    Object.assign(this, { client, chosen, showNotice });
    at("filter").addEventListener("input", () => this.#typed());
    at("more-hits").addEventListener("click", () => this.#find(this.#after));
  }

  clear() {
    clearTimeout(this.#timer);
    this.#asked++;
    at("found").hidden = true;
    at("hits").replaceChildren();
  }

  #typed() {
    clearTimeout(this.#timer);
    if (at("filter").value.trim()) this.#timer = setTimeout(() => this.#find(null), WAIT_MS);
    else this.clear();
  }

  async #find(after) {
    const asked = ++this.#asked;
    try {
      const page = await this.client().search(at("filter").value, after);
      if (asked !== this.#asked) return;
      if (!after) at("hits").replaceChildren();
      for (const hit of page.data) if (hit.item_id) at("hits").append(this.#row(hit));
      this.#after = page.after;
      at("more-hits").hidden = !page.has_more;
      at("no-hits").hidden = at("hits").children.length > 0;
      at("found").hidden = false;
    } catch (error) {
      if (asked === this.#asked) this.showNotice(error.message);
    }
  }

  #row(hit) {
    const open = (event) => {
      event.preventDefault();
      this.chosen(hit.thread_id, hit.item_id);
    };
    // Messages of one conversation that follow each other have its title once.
    const isSame = at("hits").lastElementChild?.dataset.thread === hit.thread_id;
    return h("li", { data: { thread: hit.thread_id } }, h("a", { href: `#${hit.thread_id}/${hit.item_id}`, onclick: open, dir: "auto" },
      h("strong", { class: isSame && "hidden" }, hit.title ?? "Untitled"),
      h("span", { class: "snippet" }, ...marked(hit.snippet))));
  }
}

/** A snippet is HTML with marks and escapes only; it is never inserted as HTML. */
function marked(snippet) {
  const texts = snippet.split(/<\/?mark>/)
    .map((text) => text.replace(MARKUP, "$1").replace(RULES, " ").replace(/&(lt|gt|amp);/g, (entity) => ENTITIES[entity]));
  return texts.map((text, place) => (place % 2 ? h("mark", {}, text) : text));
}
