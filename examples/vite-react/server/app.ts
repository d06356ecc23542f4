// The server of the page: who is signed in, and the proxy that adds their token.

import { chatProxy, isSameOrigin, refusal } from "chatkit-postgres-front-end/proxy";
import { Hono } from "hono";
import { DEMO_USERS, signedIn, signIn, signOut } from "./demo-sign-in";
import { tokenFor } from "./token";

export const app = new Hono();

const backend = { url: process.env.CHAT_BACKEND_URL ?? "http://127.0.0.1:8000", tokenFor };
const chat = chatProxy(backend, signedIn);
// A sign-in without a password is for this machine: not for a page whose host name resolves to us, nor through a proxy. A
// program on another machine can write what it likes into `host`: replace the sign-in before you deploy.
const LOOPBACK = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

app.all("/api/*", ({ req }) => chat(req.raw));

app.get("/session", async ({ req, json }) => json({ user: await signedIn(req.raw), users: DEMO_USERS }));

/** A form with the field `user`: one of the demo's to sign in, nothing to sign out. */
app.post("/session", async (context) => {
  const request = context.req.raw;
  const isForwarded = request.headers.has("x-forwarded-for") || request.headers.has("forwarded");
  if (isForwarded || !LOOPBACK.test(request.headers.get("host") ?? "")) {
    return refusal(403, "forbidden", "The demo's sign-in works on this machine only: put your own into server/demo-sign-in.ts.");
  }
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "Sign in from the page itself.");
  const id = (await context.req.parseBody()).user;
  const user = DEMO_USERS.find((one) => one.id === id);
  if (user) await signIn(context, user);
  else if (id === "") signOut(context);
  else return refusal(422, "invalid_request", "There is no such user.");
  return context.body(null, 204);
});
