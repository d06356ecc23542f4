// One question at a time, in a dialog that the browser keeps the keyboard in.

import { at } from "./dom.js";

/** Resolves to what was typed ("" without a field), or to null if it was cancelled. */
export function ask({ title, text, yes, field, isDestructive = false }) {
  const dialog = at("dialog");
  at("dialog-title").textContent = title;
  at("dialog-text").textContent = text ?? "";
  at("dialog-yes").textContent = yes;
  at("dialog-yes").classList.toggle("destructive", isDestructive);
  at("dialog-label").hidden = !field;
  at("dialog-field").value = "";
  at("dialog-label").firstChild.textContent = field ?? "";
  return new Promise((resolve) => {
    const done = new AbortController();
    const { signal } = done;
    const end = (said) => {
      done.abort();
      dialog.close();
      resolve(said);
    };
    const confirm = () => end(at("dialog-field").value.trim());
    at("dialog-yes").addEventListener("click", confirm, { signal });
    at("dialog-no").addEventListener("click", () => end(null), { signal });
    at("dialog-field").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      // Where the keyboard is after that, it would be a new line.
      event.preventDefault();
      confirm();
    }, { signal });
    dialog.addEventListener("cancel", () => end(null), { signal });
    // What is beside it is the dialog itself; what is in it has elements of its own, and its padding is not meant.
    dialog.addEventListener("mousedown", (event) => event.target === dialog && isOutside(dialog, event) && end(null), { signal });
    dialog.showModal();
    (field ? at("dialog-field") : at("dialog-no")).focus();
  });
}

function isOutside(element, { clientX, clientY }) {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}
