// Who is signed in: the rest of the app asks here only. Put your own sign-in behind it.

import { signedIn } from "./demo-sign-in";

export type User = { id: string; name: string };

/** The user of this request, or null. */
export function currentUser(): Promise<User | null> {
  return signedIn();
}
