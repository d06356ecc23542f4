import { isSameOrigin, refusal } from "chatkit-postgres-front-end/proxy";
import { DEMO_USERS, signIn, signOut } from "@/lib/demo-sign-in";

// A sign-in without a password is for this machine, and not for a page whose host name resolves to us. A program on another
// machine can write what it likes into `host`: replace the sign-in before you deploy.
const LOOPBACK = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/** A form with the field `user`: one of the demo's to sign in, nothing to sign out. */
export async function POST(request: Request): Promise<Response> {
  if (!LOOPBACK.test(request.headers.get("host") ?? "")) {
    return refusal(403, "forbidden", "The demo's sign-in works on this machine only: put your own into lib/session.ts.");
  }
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "Sign in from the page itself.");
  const id = (await request.formData().catch(() => null))?.get("user");
  const user = DEMO_USERS.find((one) => one.id === id);
  if (user) {
    const protocol = request.headers.get("x-forwarded-proto") ?? new URL(request.url).protocol;
    await signIn(user, protocol.startsWith("https"));
  } else if (id === "") await signOut();
  else return refusal(422, "invalid_request", "There is no such user.");
  return new Response(null, { status: 303, headers: { location: "/" } });
}
