"use client";

import { useEffect, useRef, useState } from "react";
import { followTurn } from "../client/live-turn";

type Following = { threadId: string; controller: AbortController };

/** Follows the running turn of the open thread: after a reload, or when another page has begun it. */
export function useLiveTurn(fetchUpdates: () => Promise<void>) {
  const [isRunning, setRunning] = useState(false);
  const following = useRef<Following | null>(null);

  /** Follow no longer, unless this is the thread that is followed. */
  const leave = (unless?: string | null) => {
    if (following.current && following.current.threadId === unless) return;
    following.current?.controller.abort();
    following.current = null;
    setRunning(false);
  };
  const follow = async (threadId: string) => {
    if (following.current?.threadId === threadId) return;
    leave();
    const controller = new AbortController();
    following.current = { threadId, controller };
    await followTurn(threadId, controller.signal, () => {
      setRunning(true);
      void fetchUpdates();
    });
    if (controller.signal.aborted) return;
    setRunning(false);
    // Also if no turn is running: it may have ended after ChatKit had loaded the thread.
    void fetchUpdates();
  };
  useEffect(() => () => leave(), []);
  return { isRunning, follow, leave };
}
