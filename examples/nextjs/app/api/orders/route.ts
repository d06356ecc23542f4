import { isSameOrigin, refusal } from "chatkit-postgres-front-end/proxy";
import { findOrders } from "@/lib/orders";
import { currentUser } from "@/lib/session";

export const dynamic = "force-dynamic";

/** The user's orders with the words of `q`, for a mention in a message. */
export async function GET(request: Request): Promise<Response> {
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "This page may not use the chat.");
  const user = await currentUser();
  if (!user) return refusal(401, "unauthorized", "Please sign in.");
  return Response.json(findOrders(user, new URL(request.url).searchParams.get("q") ?? ""));
}
