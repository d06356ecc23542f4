"use client";

import { ChatKit, useChatKit } from "@openai/chatkit-react";
import Script from "next/script";
import { useEffect, useRef, useState } from "react";
import { type Hit, Search, Snippet } from "./search";
import type { ClientConfig } from "@/lib/client-config";
import { stopTurn } from "@/lib/live-turn";
import { mentions } from "@/lib/mentions";
import type { User } from "@/lib/session";
import { turnFetch } from "@/lib/turn-fetch";
import { useLiveTurn } from "@/lib/use-live-turn";
import { useReminder } from "@/lib/use-reminder";
import { useTheme } from "@/lib/use-theme";
import { withMetadata } from "@/lib/with-metadata";

const SCRIPT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js";
const PATIENCE_MS = 10_000;
const LOCALE = "en";

/** `config` is what the server allows; null if it could not be asked. */
export function Chat({ user, thread, config }: { user: User; thread: string | null; config: ClientConfig | null }) {
  const [theme, toggleTheme] = useTheme();
  const [isSignedOut, setSignedOut] = useState(false);
  const [isMissing, setMissing] = useMissingScript();
  const [found, setFound] = useState<Hit | null>(null);
  const [notice, setNotice] = useState<string | null>(null);
  const remind = useReminder();
  const openThread = useRef<string | null>(null);
  useEffect(() => {
    openThread.current = thread;
    return () => void (openThread.current = null);
  }, [thread]);
  const { control, fetchUpdates, sendCustomAction, setThreadId } = useChatKit({
    api: {
      url: "/api/chatkit",
      // Any text works on localhost; elsewhere, use the key of your domain from OpenAI's settings.
      domainKey: process.env.NEXT_PUBLIC_CHATKIT_DOMAIN_KEY ?? "localhost",
      fetch: noticing401(withMetadata(turnFetch(() => openThread.current), { name: user.name }), () => setSignedOut(true)),
      uploadStrategy: { type: "two_phase" },
    },
    theme,
    // As the page around it. Without this, the browser's.
    locale: LOCALE,
    frameTitle: config?.name ?? "Chat",
    header: {
      title: { text: config?.name },
      rightAction: { icon: theme === "dark" ? "light-mode" : "dark-mode", onClick: toggleTheme },
    },
    initialThread: thread,
    history: { enabled: true, showDelete: true, showRename: true },
    threadItemActions: { feedback: true, retry: true },
    composer: config?.composer ?? {},
    startScreen: { greeting: "What can I do for you?", ...config?.startScreen },
    disclaimer: { text: "The assistant can be wrong. Check what matters." },
    onClientTool: ({ name }) => (name === "get_page_title" ? { title: document.title } : { error: `There is no tool ${name}.` }),
    entities: mentions((id) => location.assign(`/shop#${id}`)),
    widgets: {
      // Actions that a widget leaves to the page (`handler: "client"`): what it does not know is the server's.
      onAction: async (action, { id }) => {
        if (action.type === "page.open") location.assign(`/shop#${action.payload?.id ?? ""}`);
        else await sendCustomAction(action, id);
      },
    },
    // What the agent asks of the page (ClientEffectEvent).
    onEffect: ({ name, data }) => setNotice(name === "notice" ? String(data?.text ?? "") : `The assistant asked for: ${readable(name)}.`),
    onResponseEnd: remind,
    onThreadChange: ({ threadId }) => {
      openThread.current = threadId;
      live.leave(threadId);
      setFound((hit) => (hit?.thread_id === threadId ? hit : null));
      // The URL names the conversation, so that a reload opens it again. The rest of it is the app's.
      const url = new URL(location.href);
      if (threadId) url.searchParams.set("thread", threadId);
      else url.searchParams.delete("thread");
      history.replaceState(null, "", url);
    },
    // A thread that was opened, at first or from the history: its answer may still be running.
    onThreadLoadEnd: ({ threadId }) => void live.follow(threadId),
    // ChatKit itself reads the turns that it requests.
    onResponseStart: () => live.leave(),
    onError: ({ error }) => console.error(error),
  });
  const live = useLiveTurn(fetchUpdates);
  return (
    <>
      <Script src={SCRIPT} strategy="afterInteractive" onError={() => setMissing(true)} />
      {isMissing && (
        <p role="alert">
          The chat could not be loaded. Something between you and cdn.platform.openai.com may keep it away; your conversations are
          safe on the server.
          <button type="button" onClick={() => location.reload()}>
            Try again
          </button>
        </p>
      )}
      {isSignedOut && (
        <p role="alert">
          Your session has ended.
          <button type="button" onClick={() => location.reload()}>
            Sign in
          </button>
        </p>
      )}
      <Search
        onChosen={(hit) => {
          setFound(hit);
          void setThreadId(hit.thread_id);
        }}
      />
      {/* ChatKit's script cannot scroll to a message, so what was found is shown above it. */}
      {found?.item_id && (
        <p role="note">
          <Snippet of={found} />
          <button type="button" onClick={() => setFound(null)}>
            Close
          </button>
        </p>
      )}
      {notice && (
        <p role="status">
          {notice}
          <button type="button" onClick={() => setNotice(null)}>
            Close
          </button>
        </p>
      )}
      {live.isRunning && (
        <p role="status">
          The assistant is still answering.
          <button type="button" onClick={() => openThread.current && stopTurn(openThread.current)}>
            Stop answering
          </button>
        </p>
      )}
      <ChatKit control={control} className="chatkit" hidden={isMissing} />
    </>
  );
}

const readable = (name: string) => name.replaceAll("_", " ");

/** A fetch that also calls `noticed` when a response is 401: the session has ended while the page was open. */
function noticing401(inner: typeof fetch, noticed: () => void): typeof fetch {
  return async (input, init) => {
    const response = await inner(input, init);
    if (response.status === 401) noticed();
    return response;
  };
}

/** True if ChatKit's script has not loaded in time: the component itself would wait without a limit. */
function useMissingScript() {
  const [isMissing, setMissing] = useState(false);
  useEffect(() => {
    let isHere = false;
    void customElements.whenDefined("openai-chatkit").then(() => {
      isHere = true;
      setMissing(false);
    });
    const timer = setTimeout(() => setMissing(!isHere), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, []);
  return [isMissing, setMissing] as const;
}
