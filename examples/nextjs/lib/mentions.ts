// Mentions: what "@" finds, and the card that a mention shows. The chat server looks each up again (`resolve_tag`).

import type { ChatKitOptions } from "@openai/chatkit-react";
import type { Order } from "./orders";

export function mentions(open: (id: string) => void): NonNullable<ChatKitOptions["entities"]> {
  return {
    showComposerMenu: true,
    onTagSearch: async (query) => {
      const response = await fetch(`/api/orders?${new URLSearchParams({ q: query })}`).catch(() => null);
      const found: Order[] = response?.ok ? await response.json() : [];
      return found.map(({ id, title, state }) => ({ id, title, group: "Orders", interactive: true, data: { state } }));
    },
    onClick: ({ id }) => open(id),
    onRequestPreview: async ({ title, data }) => ({
      preview: { type: "Basic", children: [{ type: "Title", value: title }, { type: "Text", value: data?.state ?? "" }] },
    }),
  };
}
