// The demo's sign-in: two users, no password, and a cookie that scripts cannot read. Replace it with your own.

import { hkdfSync } from "node:crypto";
import { SignJWT, jwtVerify } from "jose";
import { cookies } from "next/headers";
import { chatSecret } from "./secret";
import type { User } from "./session";

export const DEMO_USERS: readonly User[] = [
  { id: "ada", name: "Ada" },
  { id: "grace", name: "Grace" },
];

const COOKIE = "session";
const SECONDS = 8 * 60 * 60;

export async function signedIn(): Promise<User | null> {
  const value = (await cookies()).get(COOKIE)?.value;
  if (!value) return null;
  try {
    const { payload } = await jwtVerify(value, sessionKey(), { algorithms: ["HS256"] });
    return DEMO_USERS.find((user) => user.id === payload.sub) ?? null;
  } catch {
    return null;
  }
}

export async function signIn(user: User, isSecure: boolean): Promise<void> {
  const value = await new SignJWT({ sub: user.id }).setProtectedHeader({ alg: "HS256" }).setExpirationTime(`${SECONDS}s`).sign(sessionKey());
  (await cookies()).set(COOKIE, value, { httpOnly: true, sameSite: "lax", secure: isSecure, path: "/", maxAge: SECONDS });
}

export async function signOut(): Promise<void> {
  (await cookies()).delete(COOKIE);
}

/** A separate key: signed with the backend's, the cookie would be a valid token for the backend. */
function sessionKey(): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", chatSecret(), "", "session cookie", 32));
}
