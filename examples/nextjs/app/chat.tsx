"use client";

import { Chat as SharedChat, type ClientConfig } from "chatkit-postgres-front-end/react";
import Script from "next/script";
import { useState } from "react";
import { mentions } from "@/lib/mentions";
import type { User } from "@/lib/session";

const SCRIPT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js";

const openOrder = (id: string) => location.assign(`/shop#${id}`);

/** The chat with what is this app's own: its orders, and where they are shown. */
export function Chat({ user, thread, config }: { user: User; thread: string | null; config: ClientConfig | null }) {
  const [isMissing, setMissing] = useState(false);
  return (
    <>
      <Script src={SCRIPT} strategy="afterInteractive" onError={() => setMissing(true)} />
      <SharedChat
        userInfo={{ name: user.name }}
        thread={thread}
        config={config}
        domainKey={process.env.NEXT_PUBLIC_CHATKIT_DOMAIN_KEY ?? "localhost"}
        locale="en"
        entities={mentions(openOrder)}
        onAction={(type, payload) => {
          if (type !== "page.open") return false;
          openOrder(String(payload.id ?? ""));
          return true;
        }}
        isScriptMissing={isMissing}
      />
    </>
  );
}
