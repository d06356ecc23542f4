// The running turn of a thread: follow it from a page that has not requested it, and stop it.

const PATIENCE_MS = 2_000;
const NEWS_MS = 500;

/** Follow the running turn of a thread to its end, also across broken connections. `onNews` is called at most twice a second. */
export async function followTurn(threadId: string, signal: AbortSignal, onNews: () => void): Promise<void> {
  while (!signal.aborted) {
    const response = await fetch(`${urlOf(threadId)}/live`, { signal }).catch(() => null);
    if (response?.status === 200 && response.body) {
      // A stream that breaks, or has nothing, may do so each time.
      if (!(await readNews(response.body, onNews))) await pause(PATIENCE_MS);
    }
    // 204: no turn is running. 4xx: not for this user.
    else if (response && response.status < 500 && response.status !== 429) return;
    else await pause(1000 * Number(response?.headers.get("retry-after")) || PATIENCE_MS);
  }
}

/** Stop the running turn of a thread. Its text is kept. */
export async function stopTurn(threadId: string): Promise<void> {
  const response = await fetch(`${urlOf(threadId)}/stop`, { method: "POST" }).catch(() => null);
  if (!response?.ok) console.error("the turn could not be stopped:", response?.status);
}

/** Returns whether there was news, and the stream came to its end. */
async function readNews(body: ReadableStream<Uint8Array>, onNews: () => void): Promise<boolean> {
  let hasNews = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const report = () => {
    timer = undefined;
    onNews();
  };
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return hasNews;
      // Other lines are heartbeats.
      if (!value.includes("data:")) continue;
      hasNews = true;
      timer ??= setTimeout(report, NEWS_MS);
    }
  } catch {
    // The connection is broken, or the signal aborted.
    return false;
  } finally {
    clearTimeout(timer);
  }
}

const urlOf = (threadId: string) => `/api/threads/${encodeURIComponent(threadId)}`;
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
