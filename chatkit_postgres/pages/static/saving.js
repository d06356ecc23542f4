// Saves a conversation as a file of Markdown.

import { h } from "./dom.js";
import { textOf } from "./updates.js";

const PAGE = 100;
const NAMES = { user_message: "You", assistant_message: "Assistant", widget: "Assistant" };

/** Read the whole conversation, and let the browser save it. */
export async function saveConversation(client, thread) {
  const items = [];
  for (let after = null, hasMore = true; hasMore;) {
    const page = await client.call("items.list", { thread_id: thread.id, order: "asc", limit: PAGE, after });
    items.push(...page.data);
    ({ after, has_more: hasMore } = page);
  }
  const address = URL.createObjectURL(new Blob([asMarkdown(thread.title, items)], { type: "text/markdown" }));
  h("a", { href: address, download: `${fileName(thread.title)}.md` }).click();
  // Not at once: the browser begins to read it after the click.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function asMarkdown(title, items) {
  const parts = items.map((item) => ({ name: NAMES[item.type], text: [textOf(item), ...filesOf(item)].filter(Boolean).join("\n\n") }));
  const said = parts.filter(({ name, text }) => name && text).map(({ name, text }) => `**${name}**\n\n${text}\n`);
  return [`# ${title}\n`, ...said].join("\n");
}

const filesOf = (item) => (item.attachments ?? []).map((file) => `*File: ${file.name}*`);

/** Without what file systems refuse. */
const fileName = (title) => title.replace(/[\\/:*?"<>|\s\u0000-\u001f]+/g, " ").trim().slice(0, 100) || "Conversation";
