import { applyUpdate, ChatClient, textOf } from "./client.js";

const at = (id) => document.getElementById(id);
const state = { client: null, threadId: null, items: new Map(), running: null, olderThreads: null };

function showNotice(text) {
  at("notice").textContent = text ?? "";
  at("notice").hidden = !text;
}

function showItem(item) {
  let element = document.querySelector(`#items li[data-id="${CSS.escape(item.id)}"]`);
  if (!element) {
    element = document.createElement("li");
    element.dataset.id = item.id;
    at("items").append(element);
  }
  const text = textOf(item);
  element.className = text === null ? "other" : item.type;
  // Model output is only ever text here, never markup.
  element.textContent = text ?? `(${item.type.replaceAll("_", " ")})`;
  element.scrollIntoView({ block: "end" });
}

function showItems(items) {
  at("items").replaceChildren();
  state.items = new Map(items.map((item) => [item.id, item]));
  items.filter((item) => item.type !== "end_of_turn").forEach(showItem);
}

function showTitle(title) {
  at("title").textContent = title ?? "New conversation";
}

function setRunning(controller) {
  state.running = controller;
  at("send").hidden = controller !== null;
  at("stop").hidden = controller === null;
}

async function listThreads(after) {
  const page = await state.client.call("threads.list", { limit: 20, after });
  const entries = page.data.map((thread) => {
    const entry = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = thread.title ?? "New conversation";
    button.setAttribute("aria-current", String(thread.id === state.threadId));
    button.addEventListener("click", () => guarded(() => openThread(thread.id)));
    entry.append(button);
    return entry;
  });
  if (after) at("threads").append(...entries);
  else at("threads").replaceChildren(...entries);
  state.olderThreads = page.has_more ? page.after : null;
  at("more-threads").hidden = !page.has_more;
}

async function openThread(threadId) {
  state.running?.abort();
  state.threadId = threadId;
  location.hash = threadId ? `#${threadId}` : "";
  showNotice(null);
  if (!threadId) {
    showTitle(null);
    showItems([]);
  } else {
    const thread = await state.client.call("threads.get_by_id", { thread_id: threadId });
    const items = [...thread.items.data];
    for (let page = thread.items; page.has_more; items.push(...page.data)) {
      page = await state.client.call("items.list", { thread_id: threadId, order: "asc", limit: 100, after: page.after });
    }
    showTitle(thread.title);
    showItems(items);
  }
  await listThreads();
  at("text").focus();
}

function handle(event) {
  switch (event.type) {
    case "thread.created":
      state.threadId = event.thread.id;
      location.hash = `#${event.thread.id}`;
      return listThreads();
    case "thread.updated":
      showTitle(event.thread.title);
      return listThreads();
    case "thread.item.added":
    case "thread.item.done":
    case "thread.item.replaced":
      state.items.set(event.item.id, event.item);
      return showItem(event.item);
    case "thread.item.updated": {
      const item = state.items.get(event.item_id);
      if (item?.type === "assistant_message") {
        applyUpdate(item, event.update);
        showItem(item);
      }
      return undefined;
    }
    case "thread.item.removed":
      state.items.delete(event.item_id);
      return document.querySelector(`#items li[data-id="${CSS.escape(event.item_id)}"]`)?.remove();
    case "notice":
      return showNotice(event.message);
    case "error":
      return showNotice(event.message ?? "The answer could not be finished. Please try again.");
  }
  return undefined;
}

async function send(text) {
  const input = { content: [{ type: "input_text", text }], attachments: [], inference_options: {} };
  const controller = new AbortController();
  setRunning(controller);
  showNotice(null);
  try {
    const events = state.threadId
      ? state.client.stream("threads.add_user_message", { thread_id: state.threadId, input }, controller.signal)
      : state.client.stream("threads.create", { input }, controller.signal);
    for await (const event of events) await handle(event);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  } finally {
    if (state.running === controller) setRunning(null);
  }
}

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    showNotice(error.message);
  }
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || state.running) return;
  at("text").value = "";
  guarded(() => send(text));
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("composer").requestSubmit();
  }
});
at("stop").addEventListener("click", () => state.running?.abort());
at("new-thread").addEventListener("click", () => guarded(() => openThread(null)));
at("more-threads").addEventListener("click", () => guarded(() => listThreads(state.olderThreads)));
at("user").addEventListener("change", () => {
  localStorage.setItem("user", at("user").value);
  state.client = new ChatClient(at("user").value);
  guarded(() => openThread(null));
});

at("user").value = localStorage.getItem("user") ?? "alice";
state.client = new ChatClient(at("user").value);
await guarded(() => openThread(location.hash.slice(1) || null));
