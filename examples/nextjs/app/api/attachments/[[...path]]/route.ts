// Files. Uploads and images use signed URLs, because ChatKit's frame has neither our cookie nor our origin. All other
// requests are for the signed-in user.

import { forward, refusal } from "@/lib/backend";
import { isSameOrigin } from "@/lib/same-origin";
import { currentUser } from "@/lib/session";

export const dynamic = "force-dynamic";

const LINK = /^\/api\/attachments\/[\w-]+\/(content|preview)$/;
const OWN = /^\/api\/attachments(\/[\w-]+)?$/;
const ANY_ORIGIN = { "access-control-allow-origin": "*" };

async function handle(request: Request): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  if (LINK.test(pathname)) {
    const answer = await forward(request, pathname + search, null);
    for (const [name, value] of Object.entries(ANY_ORIGIN)) answer.headers.set(name, value);
    return answer;
  }
  if (!OWN.test(pathname)) return refusal(404, "not_found", "There is nothing at this address.");
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "This page may not use these files.");
  const user = await currentUser();
  if (!user) return refusal(401, "unauthorized", "Please sign in.");
  return forward(request, pathname, user);
}

export { handle as GET, handle as POST, handle as PUT };

/** Signed URLs may be used by ChatKit's frame, which sends a CORS preflight. */
export function OPTIONS(request: Request): Response {
  if (!LINK.test(new URL(request.url).pathname)) return new Response(null, { status: 204 });
  return new Response(null, {
    status: 204,
    headers: {
      ...ANY_ORIGIN,
      "access-control-allow-methods": "GET, POST, PUT",
      "access-control-allow-headers": request.headers.get("access-control-request-headers") ?? "content-type",
      "access-control-max-age": "600",
    },
  });
}
