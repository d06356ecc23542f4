// Speaks the ChatKit protocol with POST /api/chatkit, as one user. Addresses are relative: a proxy may add a path.

const WAITS_BEFORE_REPEATING = [400, 1500];
const UPLOAD_TRIES = 5;
const FOLLOW_TRIES = 10;
const LONGEST_WAIT_SECONDS = 5;

export class ChatError extends Error {
  constructor(body, status, retryAfter) {
    // The request id finds a server error in the log. Users of this page cannot act on the field of an invalid request.
    super((body.message?.replace(/ \(params\.[\w.]+\)/, "") ?? `The server answered ${status}.`) + (status === 500 && body.request_id ? ` (request ${body.request_id})` : ""));
    this.code = body.code;
    this.status = status;
    this.retryAfter = retryAfter;
    this.requestId = body.request_id;
  }
}

export class ChatClient {
  #token = null;

  /** `mint(user)` returns a token, and is called again when the server rejects it. */
  constructor(user, mint = mintToken) {
    this.user = user;
    this.mint = mint;
  }

  /** The JSON response of an operation that does not stream. */
  async call(type, params) {
    return reached(async () => (await this.#post({ type, params }, {})).json());
  }

  /**
   * The events of a streaming operation. The turn continues if the signal is aborted: `stop` ends it. After a broken
   * connection, the request is repeated with the same key: the server then sends the events of the same turn again, from
   * the beginning, stores nothing twice, and sends an error if the turn was stopped.
   */
  async *stream(type, params, { signal, key }) {
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await this.#post({ type, params }, { "Idempotency-Key": key, "Chat-On-Disconnect": "finish" }, signal);
        yield* eventsOf(response);
        return;
      } catch (error) {
        const isBroken = error instanceof TypeError && !signal.aborted;
        if (!isBroken || attempt >= WAITS_BEFORE_REPEATING.length) throw error;
        await pause(WAITS_BEFORE_REPEATING[attempt], signal);
      }
    }
  }

  /** Stop the running turn of a thread. Return whether there was one. */
  async stop(threadId) {
    return reached(async () => (await (await this.fetch(`${urlOf(threadId)}/stop`, { method: "POST" })).json()).stopped);
  }

  /** The ids of the threads in which a question is "waiting" for the user, or an answer is "running". */
  async marked(mark) {
    const { data } = await reached(async () => (await this.fetch(`api/threads/${mark}`, {})).json());
    return new Set(data.map((thread) => thread.thread_id));
  }

  /** What the server allows: options in the shape of ChatKit's. */
  async config() {
    return reached(async () => (await this.fetch("api/client-config", {})).json());
  }

  /** A page of messages and titles with the words of a query, the newest first. */
  async search(q, after) {
    const asked = new URLSearchParams({ q, ...(after && { after }) });
    return reached(async () => (await this.fetch(`api/search?${asked}`, {})).json());
  }

  /** Whether a turn of a thread is running. True if the server cannot say so now: `follow` waits until it can. */
  async isRunning(threadId) {
    const asking = new AbortController();
    try {
      return (await this.#live(threadId, asking.signal)).status === 200;
    } catch (error) {
      return error.status !== 404;
    } finally {
      asking.abort();
    }
  }

  /** The events of the running turn of a thread, to its end; again from the beginning after a broken connection. */
  async *follow(threadId, signal) {
    for (let failures = 0; ;) {
      try {
        const response = await this.#live(threadId, signal);
        if (response.status === 204) return;
        let isEmpty = true;
        for await (const event of eventsOf(response)) {
          isEmpty = false;
          failures = 0;
          yield event;
        }
        if (isEmpty) throw new TypeError("The stream was empty.");
      } catch (error) {
        const mayPass = error instanceof TypeError || error.status >= 500 || error.status === 429;
        if (signal.aborted || !mayPass || ++failures > FOLLOW_TRIES) throw error;
        await pause(1000 * (error.retryAfter ?? Math.min(failures, LONGEST_WAIT_SECONDS)), signal);
      }
    }
  }

  #live(threadId, signal) {
    return this.fetch(`${urlOf(threadId)}/live`, { signal });
  }

  /** Upload a file in two steps: announce it, then send its bytes. If the server is busy, wait as long as it asks. */
  async upload(file, { signal, announced }) {
    const mime_type = file.type || "application/octet-stream";
    const create = () => this.call("attachments.create", { name: file.name, size: file.size, mime_type });
    const attachment = await inTurn(create, signal);
    announced(attachment);
    const { url, method, headers } = attachment.upload_descriptor;
    await inTurn(async () => {
      const response = await reached(() => fetch(url, { method, headers, body: file, signal }));
      if (!response.ok) throw await errorOf(response);
    }, signal);
  }

  /** An attachment with its `download_url`. */
  async describe(attachmentId) {
    return reached(async () => (await this.fetch(`api/attachments/${attachmentId}`, {})).json());
  }

  #post(body, headers, signal) {
    const asked = { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body), signal };
    return this.fetch("api/chatkit", asked);
  }

  /** Send a request with the token, or with a new one if the server rejects it. */
  async fetch(address, asked) {
    const send = async () => {
      this.#token ??= await this.mint(this.user);
      return fetch(address, { ...asked, headers: { ...asked.headers, Authorization: `Bearer ${this.#token}` } });
    };
    let response = await send();
    if (response.status === 401) {
      this.#token = null;
      response = await send();
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

const urlOf = (threadId) => `api/threads/${encodeURIComponent(threadId)}`;

async function inTurn(request, signal) {
  for (let left = UPLOAD_TRIES; ; left--) {
    try {
      return await request();
    } catch (error) {
      if (error.status !== 429 || left <= 1) throw error;
      await pause(1000 * (error.retryAfter ?? 2), signal);
    }
  }
}

/** Replaces the message of a network error, which differs between browsers. */
async function reached(request) {
  try {
    return await request();
  } catch (error) {
    throw error instanceof TypeError ? new Error("The server cannot be reached. Please try again.") : error;
  }
}

function pause(milliseconds, signal) {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (waiting + value).split("\n\n");
    waiting = frames.pop();
    for (const frame of frames) {
      // Lines that start with a colon are heartbeats.
      const data = frame.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  return new ChatError(body, response.status, Number(response.headers.get("Retry-After")) || null);
}

async function mintToken(user) {
  const response = await fetch("dev/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user }),
  });
  if (!response.ok) throw await errorOf(response);
  return (await response.json()).token;
}
