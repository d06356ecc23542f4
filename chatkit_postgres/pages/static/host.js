// The page around this one, which shows it in an iframe: it gives tokens, and receives messages about what happens here.

const WAIT_MS = 15_000;
const PREFIX = "chatkit-postgres.";

export class Host {
  #origins;
  #origin = "*";
  #token = null;
  #waiting = [];

  /** `onMessage(type, data)` is called with each other message of the page around, if it has an allowed origin. */
  constructor(origins, onMessage) {
    this.#origins = origins;
    addEventListener("message", ({ source, origin, data }) => {
      if (source !== parent || parent === window || !origins.includes(origin)) return;
      if (typeof data?.type !== "string" || !data.type.startsWith(PREFIX)) return;
      this.#origin = origin;
      const type = data.type.slice(PREFIX.length);
      if (type !== "token") onMessage(type, data);
      else if (typeof data.token === "string") this.#take(data.token);
    });
  }

  /** Before the first message from there, its origin is not known: only what is no secret may be posted then. */
  post(type, data = {}) {
    if (parent !== window) parent.postMessage({ ...data, type: PREFIX + type }, this.#origin);
  }

  /** A token that was not used yet, as soon as there is one. */
  async token() {
    const given = this.#token;
    this.#token = null;
    if (given !== null) return given;
    this.post("token-needed");
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("The page around this chat has not said who you are.")), WAIT_MS);
      this.#waiting.push((token) => {
        clearTimeout(timer);
        resolve(token);
      });
    });
  }

  #take(token) {
    if (!this.#waiting.length) this.#token = token;
    for (const resolve of this.#waiting.splice(0)) resolve(token);
  }
}
