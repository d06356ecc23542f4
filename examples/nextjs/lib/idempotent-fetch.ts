// A fetch for ChatKit, which repeats a request whose answer broke off. Each body keeps one Idempotency-Key until a response
// for it has ended properly, so that the server tells the same turn again instead of storing the message twice.

const SECONDS = 60; // Who says the same again later means it.

const keys = new Map<string, { key: string; until: number }>();

function keyFor(body: string): string {
  const now = Date.now();
  for (const [old, { until }] of keys) if (until < now) keys.delete(old);
  const key = keys.get(body)?.key ?? crypto.randomUUID();
  keys.set(body, { key, until: now + SECONDS * 1000 });
  return key;
}

export const idempotentFetch: typeof fetch = async (input, init) => {
  const body = init?.body;
  if (typeof body !== "string") return fetch(input, init);
  const key = keyFor(body);
  const forget = () => {
    if (keys.get(body)?.key === key) keys.delete(body);
  };
  // Who stops on purpose may say the same again, and means it.
  if (init?.signal?.aborted) forget();
  init?.signal?.addEventListener("abort", forget, { once: true });

  const headers = new Headers(init?.headers);
  headers.set("idempotency-key", key);
  const response = await fetch(input, { ...init, headers });
  // A refusal is final; a fault of the server is not.
  if (response.status < 500 && !response.ok) forget();
  if (!response.ok || !response.body) return response;
  return new Response(watched(response.body, forget), {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
};

/** The same bytes; `ended` is called at their end, or when the reader wants no more, and not when the connection breaks. */
function watched(body: ReadableStream<Uint8Array>, ended: () => void): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { value, done } = await reader.read();
      if (done) {
        ended();
        controller.close();
      } else controller.enqueue(value);
    },
    async cancel(reason) {
      ended();
      await reader.cancel(reason);
    },
  });
}
