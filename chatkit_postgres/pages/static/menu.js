// A menu below a button: arrow keys move in it; Escape, Tab and a click elsewhere close it.

import { at, h, icon } from "./dom.js";

const GAP = 4;
let owner = null;
/** Whose menu a click elsewhere has just closed, and when: that click must not open it again. */
let clickedAway = { owner: null, at: 0 };
/** Closed by a key or a choice. */
let isLeft = false;

/** `entries` are {name, label, act, isDestructive}; an act is called after the menu has closed. */
export function openMenu(button, entries) {
  // The click that closes an open menu hits its button, too.
  if (clickedAway.owner === button && performance.now() - clickedAway.at < 200) return;
  const menu = at("popup");
  // Beside its button, for screen readers, and because the rest of the page may be inert.
  button.closest("nav, main").append(menu);
  isLeft = false;
  owner = button;
  button.setAttribute("aria-expanded", "true");
  menu.setAttribute("aria-label", button.getAttribute("aria-label"));
  menu.replaceChildren(...entries.map(({ name, label, act, isDestructive }) => {
    const choose = () => {
      isLeft = true;
      menu.hidePopover();
      act();
    };
    return h("button", { type: "button", role: "menuitem", tabindex: -1, class: isDestructive && "danger", onclick: choose }, icon(name), label);
  }));
  menu.showPopover();
  place(menu, button);
  menu.firstElementChild.focus();
}

/** Below the button, or above it where the page ends. */
function place(menu, button) {
  const around = button.getBoundingClientRect();
  const left = Math.min(around.left, innerWidth - menu.offsetWidth - GAP);
  const fits = around.bottom + GAP + menu.offsetHeight < innerHeight;
  menu.style.left = `${Math.max(GAP, left)}px`;
  menu.style.top = `${fits ? around.bottom + GAP : Math.max(GAP, around.top - GAP - menu.offsetHeight)}px`;
}

/** Must be called once, when the page is there. */
export function watchMenu() {
  const menu = at("popup");
  menu.addEventListener("keydown", (event) => {
    const entries = [...menu.children];
    const here = entries.indexOf(document.activeElement);
    const next = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: -1 }[event.key];
    isLeft ||= event.key === "Tab" || event.key === "Escape";
    if (event.key === "Tab") menu.hidePopover();
    // Or the page's own Escape would stop an answer.
    if (event.key === "Escape") event.stopPropagation();
    if (next === undefined) return;
    event.preventDefault();
    entries.at(next % entries.length).focus();
  });
  menu.addEventListener("beforetoggle", ({ newState }) => {
    if (newState !== "closed" || !owner) return;
    if (!isLeft) clickedAway = { owner, at: performance.now() };
    owner.setAttribute("aria-expanded", "false");
    if (menu.contains(document.activeElement)) owner.focus();
    owner = null;
  });
}
