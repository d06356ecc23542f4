// What the chat server allows, as options for ChatKit's component, so that the two cannot disagree.

import { ask } from "chatkit-postgres-front-end/proxy";
import type { ClientConfig } from "chatkit-postgres-front-end/react";
import { backend } from "./backend";
import type { User } from "./session";

/** Null if the chat server cannot be asked: the page then shows the chat without choices. */
export async function clientConfigFor(user: User): Promise<ClientConfig | null> {
  try {
    const response = await ask(backend, "/api/client-config", user);
    return response.ok ? await response.json() : null;
  } catch (error) {
    console.error("the chat server could not be asked what it allows:", error);
    return null;
  }
}
