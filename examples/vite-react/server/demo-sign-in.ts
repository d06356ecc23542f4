// The demo's sign-in: two users, no password, and a cookie that scripts cannot read. Replace it with your own.

import { hkdfSync } from "node:crypto";
import type { Context } from "hono";
import { deleteCookie, setCookie } from "hono/cookie";
import { parse } from "hono/utils/cookie";
import { jwtVerify, SignJWT } from "jose";
import { chatSecret, type User } from "./token";

export const DEMO_USERS: readonly User[] = [
  { id: "ada", name: "Ada" },
  { id: "grace", name: "Grace" },
];

const COOKIE = "session";
const SECONDS = 8 * 60 * 60;

/** The user of a request, or null. */
export async function signedIn(request: Request): Promise<User | null> {
  const value = parse(request.headers.get("cookie") ?? "", COOKIE)[COOKIE];
  if (!value) return null;
  try {
    const { payload } = await jwtVerify(value, sessionKey(), { algorithms: ["HS256"] });
    return DEMO_USERS.find((user) => user.id === payload.sub) ?? null;
  } catch {
    return null;
  }
}

export async function signIn(context: Context, user: User): Promise<void> {
  const value = await new SignJWT({ sub: user.id }).setProtectedHeader({ alg: "HS256" }).setExpirationTime(`${SECONDS}s`).sign(sessionKey());
  const protocol = context.req.header("x-forwarded-proto") ?? new URL(context.req.url).protocol;
  setCookie(context, COOKIE, value, { httpOnly: true, sameSite: "Lax", secure: protocol.startsWith("https"), path: "/", maxAge: SECONDS });
}

export function signOut(context: Context): void {
  deleteCookie(context, COOKIE);
}

/** A separate key: signed with the chat server's, the cookie would be a valid token for it. */
function sessionKey(): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", chatSecret(), "", "session cookie", 32));
}
