// Signs the token that identifies the user to the chat server, with the secret that both share.

import { readFileSync } from "node:fs";
import { SignJWT } from "jose";

export type User = { id: string; name: string };

const LIFETIME = "5m";

export function tokenFor(user: User): Promise<string> {
  return new SignJWT({ sub: user.id, name: user.name })
    .setProtectedHeader({ alg: "HS256" })
    .setIssuedAt()
    .setExpirationTime(LIFETIME)
    .sign(chatSecret());
}

/** Throws an error with instructions if there is no secret. */
export function chatSecret(): Uint8Array {
  const file = process.env.CHAT_JWT_SECRET_FILE;
  const secret = process.env.CHAT_JWT_SECRET || (file ? readFileSync(file, "utf8").trim() : "");
  if (secret.length < 32) throw new Error("CHAT_JWT_SECRET: set it to the chat server's, at least 32 characters.");
  return new TextEncoder().encode(secret);
}
