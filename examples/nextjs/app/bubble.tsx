"use client";

import type { ClientConfig } from "chatkit-postgres-front-end/react";
import { useState } from "react";
import { Chat } from "./chat";
import type { User } from "@/lib/session";

/** The chat in a corner of any page. It is there from the first opening on, so that an answer goes on while it is closed. */
export function Bubble({ user, config }: { user: User; config: ClientConfig | null }) {
  const [isOpen, setOpen] = useState(false);
  const [wasOpened, setOpened] = useState(false);
  const toggle = () => {
    setOpened(true);
    setOpen(!isOpen);
  };
  return (
    <>
      {wasOpened && (
        <section className="bubble chat" aria-label={config?.name ?? "Chat"} hidden={!isOpen}>
          <Chat user={user} thread={null} config={config} />
        </section>
      )}
      <button type="button" className="bubble-button" aria-expanded={isOpen} onClick={toggle}>
        {isOpen ? "Close the chat" : "Ask us"}
      </button>
    </>
  );
}
