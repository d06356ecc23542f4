// A fetch for ChatKit, which repeats a request whose answer broke off. Each body keeps one Idempotency-Key until a response
// for it has ended properly, so that the server tells the same turn again instead of storing the message twice.

const SECONDS = 900; // Longer than an answer may take (CHAT_TURN_SECONDS). Who says the same again later than that means it.

const keys = new Map<string, { key: string; until: number }>();

export const idempotentFetch: typeof fetch = async (input, init) => {
  const body = init?.body;
  if (typeof body !== "string") return fetch(input, init);
  const key = keyFor(body);
  const isOurs = () => keys.get(body)?.key === key;
  const ended = () => void (isOurs() && keys.delete(body));
  const broke = () => void (isOurs() && keys.set(body, { key, until: Date.now() + SECONDS * 1000 }));
  // Who stops on purpose may say the same again, and means it.
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
  // A fault of the server is repeated; a refusal is final.
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

/** The same bytes, and word of how they ended. */
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
