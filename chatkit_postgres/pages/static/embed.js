// One conversation in an iframe: its user, and which conversation it is, are the business of the page around it.

import { assemble } from "./chat.js";
import { ChatClient } from "./client.js";
import { at, h } from "./dom.js";
import { Host } from "./host.js";
import { storeInMemory } from "./tab-state.js";
import { rendering } from "./markdown.js";

const origins = document.querySelector("meta[name=origins]").content.split(" ");
const host = new Host(origins, hear);
// Of one user: for another one, the page around loads this page again.
const user = new ChatClient("", () => host.token());

storeInMemory();
rendering.fetch = (address, asked) => user.fetch(address, asked);

const { conversation, composer, log, say, configure } = assemble({
  client: () => user,
  changed: () => {},
  entered: (threadId) => host.post("thread", { threadId }),
  left: () => host.post("thread", { threadId: null }),
  effect: (name, data) => host.post("effect", { name, data }),
  action: (name, payload) => host.post("action", { name, payload }),
});

function hear(type, { threadId, theme }) {
  if (type === "open" && (threadId === null || typeof threadId === "string")) conversation.open(threadId);
  else if (type === "theme" && ["light", "dark"].includes(theme)) {
    document.documentElement.dataset.wantedTheme = theme;
    dispatchEvent(new Event("theme"));
  }
}

async function begin() {
  if (parent === window) throw new Error("This page belongs into an iframe.");
  await conversation.open(null);
  host.post("ready");
  const { greeting, prompts } = (await configure()).startScreen;
  at("welcome-title").textContent = greeting ?? "What would you like to say?";
  at("prompts").replaceChildren(...prompts.map(({ label, prompt }) =>
    h("li", {}, h("button", { type: "button", onclick: () => say(prompt) }, h("strong", {}, label)))));
}

at("new-thread").addEventListener("click", () => {
  conversation.open(null);
  host.post("thread", { threadId: null });
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || at("dialog").open) return;
  if (conversation.isRunning) conversation.stop();
  else if (composer.isQuoting) composer.quote(null);
  else host.post("close");
});

await begin().catch((error) => log.showNotice(error.message));
document.querySelector("main").removeAttribute("aria-busy");
