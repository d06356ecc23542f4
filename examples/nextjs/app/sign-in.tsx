// The demo's sign-in, as plain forms, which work before any script has loaded.

import { DEMO_USERS } from "@/lib/demo-sign-in";

export function SignIn() {
  return (
    <form action="/api/session" method="post">
      {DEMO_USERS.map((user) => (
        <button key={user.id} name="user" value={user.id}>
          {user.name}
        </button>
      ))}
    </form>
  );
}

export function SignOut() {
  return (
    <form action="/api/session" method="post">
      <button name="user" value="">
        Sign out
      </button>
    </form>
  );
}
