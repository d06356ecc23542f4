// The conversation with its parts, as every page shows it: the playground, and a page in an iframe.

import { Choices } from "./choices.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { watchDictation } from "./dictation.js";
import { adorn, at, hasKeyboard, listed, readable } from "./dom.js";
import { Interactions } from "./interactions.js";
import { Log } from "./log.js";

// The second click of a double click on "Send" hits "Stop", which replaces it.
const DOUBLE_CLICK_MS = 600;
const ICONS = { "new-thread": "new", attach: "attach", send: "send", stop: "stop", "to-end": "down", dictate: "microphone" };

/**
 * `client()` is the current user's; `changed()` is called when this page has changed the list of conversations,
 * `entered(threadId)` when a first message has made a conversation, `left()` when the one of the address is gone;
 * `effect(name, data)` and `action(type, payload)` for what the assistant and a widget leave to the page: shown, by default.
 */
export function assemble({ client, changed, entered, left, effect, action }) {
  const showNotice = (...about) => log.showNotice(...about);
  const showEffect = (name, data) => showNotice(listed(data), { level: "info", title: `The page is asked to ${readable(name)}` });
  const showAction = (type, payload) => showNotice(listed(payload), { level: "info", title: `For the page: ${readable(type)}` });
  const log = new Log({
    act: (...about) => interactions.act(...about),
    answer: (...about) => interactions.answer(...about),
    callTool: (item) => interactions.callTool(item),
    openFile: (attachment) => interactions.openFile(attachment),
    rate: (...about) => interactions.rate(...about),
    rated: (item) => interactions.rated(item),
    retry: (item) => conversation.retry(item),
    quote: (text) => composer.quote(text),
    openEntity: (source) => showNotice(listed(source.data), { level: "info", title: source.title }),
  });
  const choices = new Choices();
  const composer = new Composer({ client, choices, showNotice, removeNotice: (text) => log.removeNotice(text), send: (...message) => conversation.send(...message) });
  const conversation = new Conversation({
    client,
    log,
    composer,
    changed,
    entered,
    left,
    effect: effect ?? showEffect,
    asked: (call) => interactions.callTool(call, true),
  });
  const interactions = new Interactions({ client, log, conversation, action: action ?? showAction });

  watch({ client, showNotice, composer, conversation });
  return {
    log,
    composer,
    conversation,
    /** Send a text, with what is chosen for the next message. */
    say(text) {
      const input = { content: [{ type: "input_text", text }], attachments: [], inference_options: choices.options() };
      return conversation.send(input, { stored: () => choices.used() });
    },
    /** Show what the server allows; returns it. */
    async configure() {
      const config = await client().config();
      choices.show(config.composer);
      conversation.setName(config.name);
      return config;
    },
  };
}

function watch({ client, showNotice, composer, conversation }) {
  for (const button of document.querySelectorAll("button[aria-label]")) button.title ||= button.getAttribute("aria-label");
  for (const [id, name] of Object.entries(ICONS)) adorn(id, name);
  let sentAt = -Infinity;
  at("composer").addEventListener("submit", () => (sentAt = performance.now()));
  at("stop").addEventListener("click", (event) => {
    const isByPointer = event.detail > 0;
    if (!isByPointer || performance.now() - sentAt > DOUBLE_CLICK_MS) conversation.stop();
  });
  at("skip").addEventListener("click", () => composer.text.focus());
  at("older").addEventListener("click", () => conversation.readOlder());
  // Where the keyboard of a phone lies over the page, the page ends above it.
  visualViewport.addEventListener("resize", () => {
    const isCovered = visualViewport.scale === 1 && innerHeight - visualViewport.height > 1;
    document.body.style.height = isCovered ? `${visualViewport.height}px` : "";
  });
  watchDictation({
    client,
    showNotice,
    begun: () => {
      const isHere = conversation.whileOpen();
      return (text) => (isHere() ? composer.insert(text) : showNotice(text, { level: "info", title: "You said" }));
    },
  });
  document.querySelector(".keys").textContent = hasKeyboard() ? "Enter sends, Shift+Enter is a new line, Esc stops" : "Enter is a new line";
}
