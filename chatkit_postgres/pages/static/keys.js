// The keyboard: shortcuts of the page, arrows in lists, and the last message in an empty field.

import { at } from "./dom.js";

const LISTS = ["threads", "hits"];

/** `search()` goes to the search field, `begin()` to a new conversation. Must be called once. */
export function watchKeys({ search, begin }) {
  addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || at("dialog").open) return;
    const key = event.key.toLowerCase();
    if (key === "k" && !event.shiftKey) act(event, search);
    else if (key === "o" && event.shiftKey) act(event, begin);
  });
  at("filter").addEventListener("keydown", (event) => {
    const links = linksIn(at("sidebar"));
    if (event.key === "ArrowDown") act(event, () => links[0]?.focus());
    else if (event.key === "Enter" && at("filter").value.trim()) act(event, () => links[0]?.click());
  });
  for (const id of LISTS) {
    at(id).addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const links = linksIn(at("sidebar"));
      const place = links.indexOf(event.target);
      if (!step || place < 0) return;
      act(event, () => (links[place + step] ?? (step < 0 ? at("filter") : event.target)).focus());
    });
  }
  at("text").addEventListener("keydown", (event) => {
    const said = [...document.querySelectorAll(".user_message .bubble")].at(-1);
    if (event.key !== "ArrowUp" || event.shiftKey || event.isComposing || at("text").value || !said) return;
    act(event, () => {
      at("text").value = said.textContent;
      at("text").dispatchEvent(new Event("input"));
    });
  });
}

const linksIn = (element) => LISTS.flatMap((id) => [...element.querySelectorAll(`#${id} a`)]).filter((link) => link.checkVisibility());

function act(event, work) {
  event.preventDefault();
  work();
}
