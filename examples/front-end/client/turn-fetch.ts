// A fetch for ChatKit: a turn continues when its page is left, and Stop ends it.

import { idempotentFetch } from "./idempotent-fetch";
import { stopTurn } from "./live-turn";

const STREAMING = /^threads\.(create|add_user_message|add_client_tool_output|add_structured_input|retry_after_item|custom_action)$/;
const CREATED = /"thread\.created".*?"id":"(\w+)"/;
const LEAVING_MS = 150;

let stopping: Promise<void> = Promise.resolve();

/** `openThread()` is the id of the thread that the page shows, or null. */
export function turnFetch(openThread: () => string | null): typeof fetch {
  return async (input, init) => {
    const request = typeof init?.body === "string" ? JSON.parse(init.body) : null;
    if (!STREAMING.test(request?.type)) return idempotentFetch(input, init);
    // Otherwise a late Stop would end the new turn.
    await stopping;
    let threadId: string | null = request.params.thread_id ?? null;
    const aborted = async () => {
      // An abort is Stop if the page still shows the thread a moment later; otherwise the user has left the thread or the page.
      if ((await staysFor(LEAVING_MS)) && threadId && threadId === openThread()) await stopTurn(threadId);
    };
    init?.signal?.addEventListener("abort", () => (stopping = aborted()), { once: true });
    const headers = new Headers(init?.headers);
    headers.set("chat-on-disconnect", "finish");
    const response = await idempotentFetch(input, { ...init, headers });
    return threadId || !response.body ? response : watched(response, response.body, (id) => (threadId = id));
  };
}

/** Whether the page is still there after this time. */
function staysFor(milliseconds: number): Promise<boolean> {
  return new Promise((resolve) => {
    addEventListener("pagehide", () => resolve(false), { once: true });
    setTimeout(() => resolve(true), milliseconds);
  });
}

/** Pass the events of a new thread on, and report its id. */
function watched(response: Response, body: ReadableStream<Uint8Array>, created: (threadId: string) => void): Response {
  const decoder = new TextDecoder();
  let text = "";
  let isKnown = false;
  const watching = new TransformStream<Uint8Array, Uint8Array>({
    transform(bytes, controller) {
      controller.enqueue(bytes);
      if (isKnown) return;
      text += decoder.decode(bytes, { stream: true });
      const found = CREATED.exec(text);
      if (!found) return;
      isKnown = true;
      created(found[1]);
    },
  });
  return new Response(body.pipeThrough(watching), response);
}
