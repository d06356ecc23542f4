// The secret that this app and the chat server share. It never leaves the server side.

import { readFileSync } from "node:fs";

/** Throws an error with instructions if there is no secret. */
export function chatSecret(): Uint8Array {
  const file = process.env.CHAT_JWT_SECRET_FILE;
  const secret = process.env.CHAT_JWT_SECRET || (file ? readFileSync(file, "utf8").trim() : "");
  if (secret.length < 32) throw new Error("CHAT_JWT_SECRET: set it to the chat server's, at least 32 characters.");
  return new TextEncoder().encode(secret);
}
