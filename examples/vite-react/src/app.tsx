import { Chat, type ClientConfig } from "chatkit-postgres-front-end/react";
import { useEffect, useState } from "react";

type User = { id: string; name: string };
type Known = { user: User | null; users: User[]; config: ClientConfig | null };

export function App() {
  const [known, setKnown] = useState<Known | null>(null);
  useEffect(() => void ask().then(setKnown), []);
  if (!known) return null;
  const { user, users, config } = known;
  const become = async (id: string) => {
    await fetch("/session", { method: "POST", body: new URLSearchParams({ user: id }) });
    location.assign("/");
  };
  if (!user) {
    return (
      <main className="sign-in">
        <h1>Who are you?</h1>
        <p>Two users of a demo; what one of them says, the other never sees.</p>
        {users.map(({ id, name }) => (
          <button key={id} type="button" onClick={() => become(id)}>
            {name}
          </button>
        ))}
      </main>
    );
  }
  return (
    <main className="chat">
      <header>
        <h1>{config?.name ?? "Chat"}</h1>
        <span>{user.name}</span>
        <button type="button" onClick={() => become("")}>
          Sign out
        </button>
      </header>
      <Chat
        userInfo={{ name: user.name }}
        thread={new URLSearchParams(location.search).get("thread")}
        config={config}
        domainKey={import.meta.env.VITE_CHATKIT_DOMAIN_KEY ?? "localhost"}
        locale="en"
      />
    </main>
  );
}

async function ask(): Promise<Known> {
  const { user, users } = await (await fetch("/session")).json();
  // Without an answer, the chat has no choices, and the server still refuses what it does not allow.
  const response = user ? await fetch("/api/client-config").catch(() => null) : null;
  return { user, users, config: response?.ok ? await response.json() : null };
}
