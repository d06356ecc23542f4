"use client";

import { useState } from "react";
import type { User } from "@/lib/session";

export function SignIn({ users }: { users: readonly User[] }) {
  const [problem, setProblem] = useState<string | null>(null);
  async function signIn(user: User) {
    const response = await fetch("/api/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ user: user.id }),
    });
    if (response.ok) location.assign("/");
    else setProblem("That did not work. Please try again.");
  }
  return (
    <>
      {users.map((user) => (
        <button key={user.id} type="button" onClick={() => void signIn(user)}>
          {user.name}
        </button>
      ))}
      {problem && <p role="alert">{problem}</p>}
    </>
  );
}

export function SignOut() {
  async function signOut() {
    await fetch("/api/session", { method: "DELETE" });
    location.assign("/");
  }
  return (
    <button type="button" onClick={() => void signOut()}>
      Sign out
    </button>
  );
}
