// Forwards requests to the chat server for the signed-in user. Only the headers listed here pass, both ways.

/** The chat server, and the token that names a user to it. */
export type ChatBackend<User> = { url: string; tokenFor: (user: User) => Promise<string> };

const ASKING_MS = 3000;

// Not the cookie, which is ours, and not a client's authorization, because we identify the user.
const PASSED_ON = ["accept", "accept-language", "content-type", "content-length", "idempotency-key", "chat-on-disconnect"];
// Not content-length or content-encoding, because the forwarded body may be framed differently.
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

/** Forward a request to a path of the chat server. Without a user, the request has no token: signed URLs need none. */
export async function forward<User>(backend: ChatBackend<User>, request: Request, path: string, user: User | null): Promise<Response> {
  const headers = new Headers({ "accept-encoding": "identity" });
  for (const name of PASSED_ON) {
    const value = request.headers.get(name);
    if (value) headers.set(name, value);
  }
  let upstream: Response;
  try {
    if (user) headers.set("authorization", `Bearer ${await backend.tokenFor(user)}`);
    upstream = await fetch(at(backend, path), {
      method: request.method,
      headers,
      body: request.body,
      // The bytes are forwarded as they arrive.
      duplex: "half",
      redirect: "manual",
      cache: "no-store",
      // Without the signal, the chat server does not notice that the browser has left.
      signal: request.signal,
    } as RequestInit);
  } catch (error) {
    if (!request.signal.aborted) console.error("the chat server could not be asked:", error);
    return refusal(503, "backend_unavailable", "The chat is not available right now. Please try again.");
  }
  const isStream = upstream.headers.get("content-type")?.startsWith("text/event-stream");
  const forwarded = new Headers({ "cache-control": isStream ? "no-cache, no-transform" : (upstream.headers.get("cache-control") ?? "no-store") });
  // Proxies in front of this app must not buffer a stream, either.
  if (isStream) forwarded.set("x-accel-buffering", "no");
  for (const name of PASSED_BACK) {
    const value = upstream.headers.get(name);
    if (value) forwarded.set(name, value);
  }
  return new Response(upstream.body, { status: upstream.status, headers: forwarded });
}

/** Send a GET request of this app's own to the chat server, with the user's token. */
export async function ask<User>(backend: ChatBackend<User>, path: string, user: User): Promise<Response> {
  const headers = { authorization: `Bearer ${await backend.tokenFor(user)}` };
  return fetch(at(backend, path), { headers, cache: "no-store", signal: AbortSignal.timeout(ASKING_MS) });
}

/** Below the path of the chat server, which may be mounted in another application. */
const at = <User>({ url }: ChatBackend<User>, path: string) => `${url.replace(/\/+$/, "")}${path}`;

/** An error in the shape of the chat server's own. */
export function refusal(status: number, code: string, message: string): Response {
  return Response.json({ code, message, request_id: crypto.randomUUID() }, { status, headers: { "cache-control": "no-store" } });
}
