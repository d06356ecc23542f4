// Who is signed in. A demo: two users, no password, and a cookie that scripts cannot read. Put your own sign-in here;
// the rest of the app asks currentUser() only.

import { hkdfSync } from "node:crypto";
import { SignJWT, jwtVerify } from "jose";
import { cookies } from "next/headers";
import { chatSecret } from "./secret";

export type User = { id: string; name: string };

export const DEMO_USERS: readonly User[] = [
  { id: "ada", name: "Ada" },
  { id: "grace", name: "Grace" },
];

const COOKIE = "session";
const SECONDS = 8 * 60 * 60;

/** The user of this request, or null. */
export async function currentUser(): Promise<User | null> {
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

/** A key of its own: signed with the backend's, the cookie would be a token for the backend. */
function sessionKey(): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", chatSecret(), "", "session cookie", 32));
}
