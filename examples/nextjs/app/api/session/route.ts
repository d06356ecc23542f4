import { refusal } from "@/lib/backend";
import { isSameOrigin } from "@/lib/same-origin";
import { DEMO_USERS, signIn, signOut } from "@/lib/session";

export async function POST(request: Request): Promise<Response> {
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "Sign in from the page itself.");
  const { user: id } = (await request.json().catch(() => ({}))) as { user?: unknown };
  const user = DEMO_USERS.find((one) => one.id === id);
  if (!user) return refusal(422, "invalid_request", "There is no such user.");
  const protocol = request.headers.get("x-forwarded-proto") ?? new URL(request.url).protocol;
  await signIn(user, protocol.startsWith("https"));
  return new Response(null, { status: 204 });
}

export async function DELETE(request: Request): Promise<Response> {
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "Sign out from the page itself.");
  await signOut();
  return new Response(null, { status: 204 });
}
