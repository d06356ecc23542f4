// A fetch for ChatKit, which repeats a request whose response broke off. Each body has one Idempotency-Key until a response
// to it has ended properly, so that the server replays the same turn instead of storing the message twice.

const SECONDS = 900; // Longer than an answer may take (CHAT_TURN_SECONDS). The same text after that is a new message.

const keys = new Map<string, { key: string; until: number }>();

export const idempotentFetch: typeof fetch = async (input, init) => {
  const body = init?.body;
  if (typeof body !== "string") return fetch(input, init);
  const key = keyFor(body);
  const isOurs = () => keys.get(body)?.key === key;
  const ended = () => void (isOurs() && keys.delete(body));
  const broke = () => void (isOurs() && keys.set(body, { key, until: Date.now() + SECONDS * 1000 }));
  // After a deliberate stop, the same text is a new message.
  if (init?.signal?.aborted) ended();
  init?.signal?.addEventListener("abort", ended, { once: true });

  const headers = new Headers(init?.headers);
  headers.set("idempotency-key", key);
  let response: Response;
  try {
    response = await fetch(input, { ...init, headers });
  } catch (error) {
    broke();
    throw error;
  }
  // A server error is repeated; a refusal is final.
  if (response.status >= 500) broke();
  else if (!response.ok) ended();
  if (!response.ok || !response.body) return response;
  return new Response(watched(response.body, ended, broke), {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
};

function keyFor(body: string): string {
  for (const [old, { until }] of keys) if (until < Date.now()) keys.delete(old);
  const key = keys.get(body)?.key ?? crypto.randomUUID();
  keys.set(body, { key, until: Date.now() + SECONDS * 1000 });
  return key;
}

/** Pass the bytes on, and report how the stream ended. */
function watched(body: ReadableStream<Uint8Array>, ended: () => void, broke: () => void): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await reader.read();
        if (!done) return controller.enqueue(value);
        ended();
        controller.close();
      } catch (error) {
        broke();
        controller.error(error);
      }
    },
    async cancel(reason) {
      ended();
      await reader.cancel(reason);
    },
  });
}
