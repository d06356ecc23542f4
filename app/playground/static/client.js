// Speaks the ChatKit protocol with POST /api/chatkit.

export class ChatError extends Error {
  constructor(body, status) {
    super(body.message ?? `The server answered ${status}.`);
    this.code = body.code;
    this.status = status;
  }
}

export class ChatClient {
  #token = null;

  constructor(user) {
    this.user = user;
  }

  /** The JSON answer of an operation that does not stream. */
  async call(type, params) {
    const response = await this.#post({ type, params });
    return response.json();
  }

  /** The events of an operation that streams. Aborting the signal is how a turn is stopped. */
  async *stream(type, params, signal) {
    const response = await this.#post({ type, params }, signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      waiting += value;
      const frames = waiting.split("\n\n");
      waiting = frames.pop();
      for (const frame of frames) {
        // Lines that start with a colon are heartbeats.
        const data = frame.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (data.length) yield JSON.parse(data.join("\n"));
      }
    }
  }

  async #post(body, signal) {
    let response = await this.#fetch(body, signal);
    if (response.status === 401) {
      this.#token = null;
      response = await this.#fetch(body, signal);
    }
    if (!response.ok) throw new ChatError(await response.json().catch(() => ({})), response.status);
    return response;
  }

  async #fetch(body, signal) {
    this.#token ??= await mintToken(this.user);
    return fetch("/api/chatkit", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${this.#token}` },
      body: JSON.stringify(body),
      signal,
    });
  }
}

async function mintToken(user) {
  const response = await fetch("/dev/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user }),
  });
  const body = await response.json();
  if (!response.ok) throw new ChatError(body, response.status);
  return body.token;
}

/** The text of a user's or the assistant's message; null for items this page does not draw. */
export function textOf(item) {
  if (item.type !== "user_message" && item.type !== "assistant_message") return null;
  return item.content.map((part) => part.text).join("\n");
}

/** Apply a thread.item.updated event to an assistant's message. */
export function applyUpdate(item, update) {
  const part = () => (item.content[update.content_index] ??= { type: "output_text", text: "", annotations: [] });
  switch (update.type) {
    case "assistant_message.content_part.added":
    case "assistant_message.content_part.done":
      item.content[update.content_index] = update.content;
      break;
    case "assistant_message.content_part.text_delta":
      part().text += update.delta;
      break;
  }
}
