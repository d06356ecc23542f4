"use client";

import { useCallback, useEffect, useRef } from "react";

const MARK = "● ";

/** Marks the title of a page that is not looked at, until it is. */
export function useReminder(): () => void {
  const title = useRef<string | null>(null);
  useEffect(() => {
    const seen = () => {
      if (document.visibilityState !== "visible" || title.current === null) return;
      document.title = title.current;
      title.current = null;
    };
    document.addEventListener("visibilitychange", seen);
    return () => document.removeEventListener("visibilitychange", seen);
  }, []);
  return useCallback(() => {
    if (document.visibilityState === "visible" || title.current !== null) return;
    title.current = document.title;
    document.title = MARK + document.title;
  }, []);
}
