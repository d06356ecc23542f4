// Plain forms, which work before any script has come.

import type { User } from "@/lib/session";

export function SignIn({ users }: { users: readonly User[] }) {
  return (
    <form action="/api/session" method="post">
      {users.map((user) => (
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
