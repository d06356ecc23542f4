"use client";

import { useEffect, useState } from "react";

const WAIT_MS = 250;

export type Hit = { thread_id: string; item_id: string | null; title: string | null; snippet: string };
type Result = { q: string; hits: Hit[]; error?: string };

/** A search field; `onChosen` is called with the message, or title, that the user picks. */
export function Search({ onChosen }: { onChosen: (hit: Hit) => void }) {
  const [q, setQ] = useState("");
  const [result, setResult] = useState<Result | null>(null);
  useEffect(() => {
    if (!q.trim()) return setResult(null);
    const asking = new AbortController();
    const timer = setTimeout(() => void find(q, asking.signal).then(setResult, () => {}), WAIT_MS);
    return () => {
      clearTimeout(timer);
      asking.abort();
    };
  }, [q]);
  return (
    <search>
      <input type="search" aria-label="Search conversations" placeholder="Search" maxLength={1000} value={q} onChange={(event) => setQ(event.target.value)} />
      {result && (
        <ul aria-label="Found">
          {result.hits.map((hit) => (
            <li key={`${hit.thread_id} ${hit.item_id}`}>
              <button
                type="button"
                onClick={() => {
                  setQ("");
                  onChosen(hit);
                }}
              >
                {/* Where the title has the words, the snippet is the title. */}
                {hit.item_id !== null && <strong>{hit.title ?? "Untitled"}</strong>}
                <Snippet of={hit} />
              </button>
            </li>
          ))}
          {!result.hits.length && (
            <li>
              <span role="status">{result.error ?? "Nothing has these words."}</span>
            </li>
          )}
        </ul>
      )}
    </search>
  );
}

/** A snippet is HTML with marks and escapes only; as text it needs no trust. */
export function Snippet({ of: { snippet } }: { of: Hit }) {
  const pieces = snippet.split(/<\/?mark>/).map((piece) => piece.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
  return <span>{pieces.map((piece, place) => (place % 2 ? <mark key={place}>{piece}</mark> : piece))}</span>;
}

async function find(q: string, signal: AbortSignal): Promise<Result> {
  const response = await fetch(`/api/search?${new URLSearchParams({ q })}`, { signal });
  const body = await response.json();
  return response.ok ? { q, hits: body.data } : { q, hits: [], error: body.message };
}
