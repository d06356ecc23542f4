// The proxy: requests of an app's own pages go to the chat server, for the user who is signed in; nothing else does.

import { type ChatBackend, forward, refusal } from "./forward";
import { isSameOrigin } from "./same-origin";

// By method, what is forwarded with the user's token.
const OWN: Record<string, RegExp> = {
  GET: /^\/api\/(threads\/[^/]+\/live|search|client-config|attachments\/[\w-]+)$/,
  POST: /^\/api\/(chatkit|threads\/[^/]+\/stop|attachments)$/,
};
// Signed URLs of files, because ChatKit's frame has neither our cookie nor our origin. They need no user.
const LINK = /^\/api\/attachments\/[\w-]+\/(content|preview)$/;
const ANY_ORIGIN = { "access-control-allow-origin": "*" };

/** Answers the requests below `/api` that are the chat's. `userOf` is the app's sign-in: the user of a request, or null. */
export function chatProxy<User>(
  backend: ChatBackend<User>,
  userOf: (request: Request) => Promise<User | null>,
): (request: Request) => Promise<Response> {
  return async (request) => {
    const { pathname, search } = new URL(request.url);
    if (LINK.test(pathname)) return request.method === "OPTIONS" ? preflight(request) : file(backend, request, pathname + search);
    if (request.method === "OPTIONS") return new Response(null, { status: 204 });
    if (!OWN[request.method]?.test(pathname)) return refusal(404, "not_found", "There is nothing at this address.");
    if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "This page may not use the chat.");
    const user = await userOf(request);
    if (!user) return refusal(401, "unauthorized", "Please sign in.");
    return forward(backend, request, pathname + search, user);
  };
}

async function file<User>(backend: ChatBackend<User>, request: Request, path: string): Promise<Response> {
  const answer = await forward(backend, request, path, null);
  for (const [name, value] of Object.entries(ANY_ORIGIN)) answer.headers.set(name, value);
  return answer;
}

/** Signed URLs may be used by ChatKit's frame, which sends a CORS preflight. */
function preflight(request: Request): Response {
  const headers = {
    ...ANY_ORIGIN,
    "access-control-allow-methods": "GET, POST, PUT",
    "access-control-allow-headers": request.headers.get("access-control-request-headers") ?? "content-type",
    "access-control-max-age": "600",
  };
  return new Response(null, { status: 204, headers });
}
