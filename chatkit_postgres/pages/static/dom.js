// Creates elements and icons, and announces status to screen readers.

/** An element; attributes beginning with "on" are listeners, true and false put an attribute on or leave it out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Whether there is a hardware keyboard: a phone's must not open unasked, and its Enter is a new line. Without a finger's
 *  pointer there is one, also where nothing else points. */
export const hasKeyboard = () => matchMedia("(any-pointer: fine)").matches || !matchMedia("(any-pointer: coarse)").matches;

export const at = (id) => document.getElementById(id);

// SVG paths, in a view box of 24 by 24.
const PATHS = {
  alert: "M12 4 21 20H3z M12 10v5 M12 17.500v.5",
  save: "M12 4v11 M7 10l5 5 5-5 M5 20h14",
  attach: "M20 11.5 12 19.5a5 5 0 0 1-7-7l8.5-8.5a3.3 3.3 0 0 1 4.7 4.7L9.8 17a1.7 1.7 0 0 1-2.4-2.4l7.6-7.6",
  check: "M5 12.5 10 17.5 19 7",
  close: "M6 6 18 18 M18 6 6 18",
  copy: "M9 9h10v11H9z M15 9V4H5v11h4",
  delete: "M4 7h16 M9 7V4h6v3 M6 7l1 13h10l1-13 M10 11v5 M14 11v5",
  down: "M12 5v14 M6 13l6 6 6-6",
  file: "M6 3h8l4 4v14H6z M14 3v4h4",
  fold: "M4 5h16v14H4z M10 5v14",
  more: "M5 11a1 1 0 1 0 0 2 1 1 0 0 0 0-2z M12 11a1 1 0 1 0 0 2 1 1 0 0 0 0-2z M19 11a1 1 0 1 0 0 2 1 1 0 0 0 0-2z",
  microphone: "M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3z M6 11a6 6 0 0 0 12 0 M12 17v4",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z M12 11v5 M12 7.500v.5",
  menu: "M4 7h16 M4 12h16 M4 17h16",
  moon: "M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z",
  new: "M12 5v14 M5 12h14",
  quote: "M5 17h3l2-4V7H4v6h3z M15 17h3l2-4V7h-6v6h3z",
  rename: "M4 20l1-5L16 4l4 4L9 19z M14 6l4 4",
  retry: "M20 12a8 8 0 1 1-2.5-5.8 M20 3v5h-5",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z M15.5 15.5 21 21",
  send: "M12 20V5 M5 12l7-7 7 7",
  spark: "M12 3l2 7 7 2-7 2-2 7-2-7-7-2 7-2z",
  stop: "M7 7h10v10H7z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.4 1.4 M17.6 17.6 19 19 M5 19l1.4-1.4 M17.6 6.4 19 5",
  "thumb-down": "M7 14V4H4v10z M7 14l4 7c2 0 2.5-1.500 2-3.500L12.500 15H19c1.500 0 2-1 1.800-2.200L19.500 6c-.3-1.200-1-2-2.200-2H7",
  "thumb-up": "M7 10v10H4V10z M7 10l4-7c2 0 2.500 1.500 2 3.500L12.500 9H19c1.500 0 2 1 1.800 2.200L19.500 18c-.3 1.200-1 2-2.200 2H7",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", PATHS[name] ?? PATHS.spark);
  svg.append(path);
  return svg;
}

/** A button that shows an icon only; its label is its name and its tooltip. */
export function iconButton(name, label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/** Put an icon before the text of a button. */
export function adorn(id, name) {
  at(id).prepend(icon(name));
}

/** A name of a program's in words: "open_panel" is "open panel". */
export const readable = (name) => name.replaceAll(/[_.-]+/g, " ").trim();

/** Values by name in one line: "panel: orders, id: 4711". */
export function listed(data) {
  return Object.entries(data ?? {})
    .map(([name, value]) => `${readable(name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}

/** Announce a status politely to screen readers. */
export function announce(text) {
  at("status").textContent = text;
}

/** Copy a text, and confirm it on the button. */
export async function copy(text, button) {
  const label = button.getAttribute("aria-label");
  if (label === "Copied") return;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    button.title = "This browser does not allow the page to copy.";
    announce(button.title);
    return;
  }
  announce("Copied");
  confirmOn(button, "Copied", "copy");
}

/** Show for a moment, on a button with the icon `name`, that it was done. */
export function confirmOn(button, done, name) {
  const label = button.getAttribute("aria-label");
  if (label === done) return;
  button.setAttribute("aria-label", done);
  button.replaceChildren(icon("check"));
  button.dataset.done = done;
  setTimeout(() => {
    button.setAttribute("aria-label", label);
    button.replaceChildren(icon(name));
    delete button.dataset.done;
  }, 1500);
}
