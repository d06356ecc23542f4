// Signs the token that identifies the user to the chat server, with the secret that both share.

import { SignJWT } from "jose";
import { chatSecret } from "./secret";
import type { User } from "./session";

const LIFETIME = "5m";

export function tokenFor(user: User): Promise<string> {
  return new SignJWT({ sub: user.id, name: user.name })
    .setProtectedHeader({ alg: "HS256" })
    .setIssuedAt()
    .setExpirationTime(LIFETIME)
    .sign(chatSecret());
}
