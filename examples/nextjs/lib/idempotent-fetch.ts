// A fetch for ChatKit. A request whose answer did not come to its end is repeated with the same Idempotency-Key, and the
// server then tells the same turn again instead of storing the message twice.

const keys = new Map<string, string>();

export const idempotentFetch: typeof fetch = async (input, init) => {
  const body = init?.body;
  if (typeof body !== "string") return fetch(input, init);
  const key = keys.get(body) ?? crypto.randomUUID();
  keys.set(body, key);
  const forget = () => keys.delete(body);
  // Who stops on purpose may say the same again, and means it.
  init?.signal?.addEventListener("abort", forget, { once: true });

  const headers = new Headers(init?.headers);
  headers.set("idempotency-key", key);
  const response = await fetch(input, { ...init, headers });
  // A refusal is final; a fault of the server is not.
  if (response.status < 500 && !response.ok) forget();
  if (!response.ok || !response.body) return response;
  // Flushed at the end, and not when the connection breaks.
  const watched = response.body.pipeThrough(new TransformStream<Uint8Array, Uint8Array>({ flush: () => void forget() }));
  return new Response(watched, { status: response.status, statusText: response.statusText, headers: response.headers });
};
