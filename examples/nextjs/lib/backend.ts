// Requests to the chat server, in the name of the user who is signed in. Only what is listed here passes, both ways.

import type { User } from "./session";
import { tokenFor } from "./token";

const BACKEND = process.env.CHAT_BACKEND_URL ?? "http://127.0.0.1:8000";

// Not the cookie, which is ours; not a client's authorization, because we say who it is.
const PASSED_ON = ["accept", "accept-language", "content-type", "content-length", "idempotency-key"];
// Not content-length or content-encoding: what we send on may be framed anew.
const PASSED_BACK = [
  "content-type",
  "content-disposition",
  "content-security-policy",
  "cross-origin-resource-policy",
  "x-content-type-options",
  "location",
  "retry-after",
  "x-request-id",
];

/** Forward a request to a path of the chat server. Without a user it carries no token: links to files need none. */
export async function forward(request: Request, path: string, user: User | null): Promise<Response> {
  const headers = new Headers({ "accept-encoding": "identity" });
  for (const name of PASSED_ON) {
    const value = request.headers.get(name);
    if (value) headers.set(name, value);
  }
  let upstream: Response;
  try {
    if (user) headers.set("authorization", `Bearer ${await tokenFor(user)}`);
    upstream = await fetch(new URL(path, BACKEND), {
      method: request.method,
      headers,
      body: request.body,
      // The bytes go through as they come.
      duplex: "half",
      redirect: "manual",
      cache: "no-store",
      // Without it, Stop in the browser never reaches the model.
      signal: request.signal,
    } as RequestInit);
  } catch (error) {
    if (!request.signal.aborted) console.error("the chat server could not be asked:", error);
    return refusal(503, "backend_unavailable", "The chat is not available right now. Please try again.");
  }
  const isStream = upstream.headers.get("content-type")?.startsWith("text/event-stream");
  const told = new Headers({ "cache-control": isStream ? "no-cache, no-transform" : (upstream.headers.get("cache-control") ?? "no-store") });
  // Proxies in front of this app, too, must not collect a stream before they pass it on.
  if (isStream) told.set("x-accel-buffering", "no");
  for (const name of PASSED_BACK) {
    const value = upstream.headers.get(name);
    if (value) told.set(name, value);
  }
  return new Response(upstream.body, { status: upstream.status, headers: told });
}

/** An error in the shape of the chat server's own. */
export function refusal(status: number, code: string, message: string): Response {
  return Response.json({ code, message, request_id: crypto.randomUUID() }, { status, headers: { "cache-control": "no-store" } });
}
