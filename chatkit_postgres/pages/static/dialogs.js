// Asks one question at a time, in a modal dialog.

import { at } from "./dom.js";

/** `field` names a text to type, of at most `maxLength` characters. Resolves to what was typed ("" without a field), or to null if it was cancelled. */
export function ask({ title, text, yes, field, maxLength = 255, value = "", isDestructive = false }) {
  const dialog = at("dialog");
  at("dialog-title").textContent = title;
  at("dialog-text").textContent = text ?? "";
  at("dialog-yes").textContent = yes;
  at("dialog-yes").classList.toggle("destructive", isDestructive);
  at("dialog-label").hidden = !field;
  at("dialog-field").maxLength = maxLength;
  at("dialog-field").value = value;
  at("dialog-label").firstChild.textContent = field ?? "";
  return new Promise((resolve) => {
    const done = new AbortController();
    const { signal } = done;
    const end = (answer) => {
      done.abort();
      dialog.close();
      resolve(answer);
    };
    const confirm = () => end(at("dialog-field").value.trim());
    at("dialog-yes").addEventListener("click", confirm, { signal });
    at("dialog-no").addEventListener("click", () => end(null), { signal });
    at("dialog-field").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      // The key would insert a new line in the field that gets the focus next.
      event.preventDefault();
      confirm();
    }, { signal });
    dialog.addEventListener("cancel", () => end(null), { signal });
    // A click on the backdrop has the dialog itself as its target, but so has a click on its padding.
    dialog.addEventListener("mousedown", (event) => event.target === dialog && isOutside(dialog, event) && end(null), { signal });
    dialog.showModal();
    (field ? at("dialog-field") : at("dialog-no")).focus();
    if (field) at("dialog-field").select();
  });
}

function isOutside(element, { clientX, clientY }) {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}
