"use client";

import { ChatKit, type ChatKitOptions, useChatKit } from "@openai/chatkit-react";
import { useEffect, useRef, useState } from "react";
import { stopTurn } from "../client/live-turn";
import { turnFetch } from "../client/turn-fetch";
import { withMetadata } from "../client/with-metadata";
import { type Hit, Search, Snippet } from "./search";
import { useLiveTurn } from "./use-live-turn";
import { useReminder } from "./use-reminder";
import { useTheme } from "./use-theme";

const PATIENCE_MS = 10_000;

/** What the server allows: the answer of GET /api/client-config. */
export type ClientConfig = Required<Pick<ChatKitOptions, "composer" | "startScreen">> & { name: string };

export type ChatProps = {
  /** What the model may know of the user. */
  userInfo: Record<string, string>;
  /** The thread to begin with; null for a new one. */
  thread: string | null;
  /** Null if the server could not be asked: then the chat has no choices. */
  config: ClientConfig | null;
  /** Any text works on localhost; elsewhere, use the key of your domain from OpenAI's settings. */
  domainKey: string;
  /** As the page around it. */
  locale: ChatKitOptions["locale"];
  entities?: ChatKitOptions["entities"];
  /** Does what a widget leaves to the page (`handler: "client"`). Returns false for an action that is the server's. */
  onAction?: (type: string, payload: Record<string, unknown>) => boolean;
  /** True if ChatKit's script is known not to load; otherwise it is given ten seconds. */
  isScriptMissing?: boolean;
};

export function Chat({ userInfo, thread, config, domainKey, locale, entities, onAction, isScriptMissing = false }: ChatProps) {
  const [theme, toggleTheme] = useTheme();
  const [isSignedOut, setSignedOut] = useState(false);
  const isMissing = useMissingScript() || isScriptMissing;
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
      domainKey,
      fetch: noticing401(withMetadata(turnFetch(() => openThread.current), userInfo), () => setSignedOut(true)),
      uploadStrategy: { type: "two_phase" },
    },
    theme,
    locale,
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
    entities,
    widgets: {
      onAction: async (action, { id }) => {
        if (!onAction?.(action.type, action.payload ?? {})) await sendCustomAction(action, id);
      },
    },
    onClientTool: ({ name }) => (name === "get_page_title" ? { title: document.title } : { error: `There is no tool ${name}.` }),
    // What the agent asks of the page (ClientEffectEvent).
    onEffect: ({ name, data }) => setNotice(name === "notice" ? String(data?.text ?? "") : `The assistant asked for: ${readable(name)}.`),
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
    onResponseEnd: remind,
    onError: ({ error }) => console.error(error),
  });
  const live = useLiveTurn(fetchUpdates);
  return (
    <>
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
function useMissingScript(): boolean {
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
  return isMissing;
}
