import { Chat } from "./chat";
import { SignIn, SignOut } from "./sign-in";
import { clientConfigFor } from "@/lib/client-config";
import { currentUser } from "@/lib/session";

export default async function Page({ searchParams }: { searchParams: Promise<{ thread?: string }> }) {
  const user = await currentUser();
  const { thread } = await searchParams;
  if (!user) {
    return (
      <main className="sign-in">
        <h1>Who are you?</h1>
        <p>Two users of a demo; what one of them says, the other never sees.</p>
        <SignIn />
      </main>
    );
  }
  const config = await clientConfigFor(user);
  return (
    <main className="chat">
      <header>
        <h1>{config?.name ?? "Chat"}</h1>
        <a href="/shop">Your orders</a>
        <span>{user.name}</span>
        <SignOut />
      </header>
      {/* Another user is another chat: nothing of the first one is kept. */}
      <Chat key={user.id} user={user} thread={thread ?? null} config={config} />
    </main>
  );
}
