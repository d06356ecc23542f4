// An empty conversation: what the assistant proposes, and who answers.

import { at, h } from "./dom.js";

/** Show the server's proposals; `say(text)` sends one. */
export async function propose(say) {
  const { model, prompts, more } = await (await fetch("/playground/prompts")).json();
  at("model").textContent = model ?? "";
  if (!prompts.length) at("welcome-title").textContent = "What would you like to say?";
  const drawn = (listed) => listed.map(({ text, shows }) =>
    h("li", {}, h("button", { type: "button", onclick: () => say(text) }, h("strong", {}, text), h("span", {}, shows))));
  at("prompts").replaceChildren(...drawn(prompts));
  at("everything").replaceChildren(...more.map((one) =>
    h("section", {}, h("h3", {}, one.group), h("ul", { class: "prompts" }, drawn(one.prompts)))));
  at("more-prompts").hidden = !more.length;
}

/** Must be called once. */
export function watchMorePrompts() {
  at("more-prompts").addEventListener("click", () => showEverything(at("everything").hidden));
  at("proposals").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || at("everything").hidden) return;
    event.stopPropagation();
    showEverything(false);
    at("more-prompts").focus();
  });
}

/** All prompts by group, in place of the few. */
export function showEverything(isShown) {
  at("everything").hidden = !isShown;
  at("prompts").hidden = isShown;
  at("more-prompts").setAttribute("aria-expanded", String(isShown));
  at("more-prompts").textContent = isShown ? "Show less" : "Show everything";
  at("proposals").scrollTop = 0;
}
