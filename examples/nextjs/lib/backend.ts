// The chat server, and the proxy to it for the user who is signed in.

import { chatProxy } from "chatkit-postgres-front-end/proxy";
import { currentUser } from "./session";
import { tokenFor } from "./token";

export const backend = { url: process.env.CHAT_BACKEND_URL ?? "http://127.0.0.1:8000", tokenFor };

/** Answers a request of ChatKit, of this app's pages, or for a file. */
export const chat = chatProxy(backend, currentUser);
