// The signed-in user, for the rest of the app. Put your own sign-in behind this function.

import { signedIn } from "./demo-sign-in";

export type User = { id: string; name: string };

/** The user of this request, or null. */
export function currentUser(): Promise<User | null> {
  return signedIn();
}
