import { forward, refusal } from "@/lib/backend";
import { isSameOrigin } from "@/lib/same-origin";
import { currentUser } from "@/lib/session";

export const dynamic = "force-dynamic";

export async function POST(request: Request): Promise<Response> {
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "This page may not use the chat.");
  const user = await currentUser();
  if (!user) return refusal(401, "unauthorized", "Please sign in.");
  return forward(request, "/api/chatkit", user);
}
