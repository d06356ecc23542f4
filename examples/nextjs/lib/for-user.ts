// Forwards a request of this app's own pages for the user who is signed in.

import { forward, refusal } from "./backend";
import { isSameOrigin } from "./same-origin";
import { currentUser } from "./session";

export async function forwardForUser(request: Request, path: string): Promise<Response> {
  if (!isSameOrigin(request)) return refusal(403, "origin_not_allowed", "This page may not use the chat.");
  const user = await currentUser();
  if (!user) return refusal(401, "unauthorized", "Please sign in.");
  return forward(request, path, user);
}
