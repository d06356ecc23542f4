// Stands in for ChatKit's script, which no test may fetch: an <openai-chatkit> that speaks the protocol with the
// options it is given. It proves protocol, methods and events, and nothing about how the real one looks.
(() => {
  const MOST_ATTEMPTS = 5;
  const LOCALE = { "accept-language": "en-GB" };

  class Stand extends HTMLElement {
    #options = null;
    #thread = null;
    #running = null;
    #attachments = [];

    setOptions(options) {
      const isFirst = this.#options === null;
      this.#options = options;
      if (!isFirst) return;
      this.innerHTML = `<ol aria-label="Items"></ol><p role="alert"></p><ul aria-label="Files"></ul>
        <input aria-label="Say"><button name="send">Send</button><button name="stop">Stop</button><input type="file" aria-label="File">`;
      this.list = this.querySelector("ol");
      this.querySelector("[name=send]").addEventListener("click", () => this.sendUserMessage({ text: this.querySelector("input").value }));
      this.querySelector("[name=stop]").addEventListener("click", () => this.#running?.abort());
      this.querySelector("[type=file]").addEventListener("change", (event) => this.#upload(event.target.files[0]));
      this.#emit("ready");
      if (options.initialThread) this.#load(options.initialThread);
    }

    /** For tests: what the app has set. */
    get options() {
      return this.#options;
    }

    /** Whether ChatKit aborts a running request here is not documented: the app must not take it for Stop. */
    async setThreadId(threadId) {
      this.#running?.abort();
      this.#emit("thread.change", { threadId });
      await this.#load(threadId);
    }

    async #load(threadId) {
      this.#thread = threadId;
      this.list.replaceChildren();
      if (threadId === null) return;
      this.#emit("thread.load.start", { threadId });
      await this.fetchUpdates();
      this.#emit("thread.load.end", { threadId });
    }

    async fetchUpdates() {
      (window.updates ??= []).push(performance.now());
      const threadId = this.#thread;
      const response = await this.#post({ type: "items.list", params: { thread_id: threadId, order: "asc" } });
      const body = await response.json();
      if (threadId !== this.#thread) return;
      if (!response.ok) this.#fail(body);
      else body.data.forEach((item) => this.#show(item));
    }

    async sendUserMessage({ text }) {
      const input = { content: text ? [{ type: "input_text", text }] : [], attachments: this.#attachments, inference_options: {} };
      this.#attachments = [];
      this.querySelector("ul").replaceChildren();
      const body = this.#thread
        ? { type: "threads.add_user_message", params: { thread_id: this.#thread, input } }
        : { type: "threads.create", params: { input } };
      this.#running = new AbortController();
      this.#emit("response.start");
      try {
        await this.#stream(body);
      } catch (error) {
        if (error.name !== "AbortError") this.#fail({ message: String(error) });
      }
      this.#running = null;
      this.#emit("response.end");
    }

    async sendCustomAction(action, itemId) {
      const params = { thread_id: this.#thread, item_id: itemId, action };
      const response = await this.#post({ type: "threads.custom_action", params });
      if (!response.ok) this.#fail(await response.json());
    }

    /** A stream that breaks, or a 5xx, is asked for again; a 4xx is final. */
    async #stream(body) {
      for (let attempt = 1; ; attempt++) {
        try {
          const response = await this.#post(body, this.#running.signal);
          if (response.status < 500) {
            if (!response.ok) return this.#fail(await response.json());
            return await this.#read(response);
          }
          if (attempt === MOST_ATTEMPTS) return this.#fail(await response.json());
        } catch (error) {
          if (error.name === "AbortError" || attempt === MOST_ATTEMPTS) throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }

    async #read(response) {
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let waiting = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const frames = (waiting + value).split("\n\n");
        waiting = frames.pop();
        for (const frame of frames) {
          const data = frame.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("");
          if (data) this.#handle(JSON.parse(data));
        }
      }
    }

    #handle(event) {
      switch (event.type) {
        case "thread.created":
          this.#thread = event.thread.id;
          return this.#emit("thread.change", { threadId: this.#thread });
        case "thread.item.added":
        case "thread.item.done":
        case "thread.item.replaced":
          return this.#show(event.item);
        case "thread.item.updated":
          if (event.update.delta === undefined) return undefined;
          (window.arrivals ??= []).push(performance.now());
          return void (this.#element(event.item_id).textContent += event.update.delta);
        case "client_effect":
          return this.#emit("effect", { name: event.name, data: event.data });
        case "error":
          return this.#fail(event);
      }
      return undefined;
    }

    #element(id) {
      let element = this.list.querySelector(`[data-id="${id}"]`);
      if (!element) {
        element = document.createElement("li");
        element.dataset.id = id;
        this.list.append(element);
      }
      return element;
    }

    #show(item) {
      if (!item.content) return;
      const element = this.#element(item.id);
      element.className = item.type;
      element.textContent = item.content.map((part) => part.text).join("");
      for (const file of item.attachments ?? []) element.append(this.#preview(file));
    }

    #preview(file) {
      const image = document.createElement("img");
      image.src = file.preview_url;
      image.alt = file.name;
      return image;
    }

    async #upload(file) {
      const response = await this.#post({ type: "attachments.create", params: { name: file.name, size: file.size, mime_type: file.type } });
      const attachment = await response.json();
      if (!response.ok) return this.#fail(attachment);
      const { url, method, headers } = attachment.upload_descriptor;
      // As from the frame of another origin: without our cookie.
      const stored = await fetch(url, { method, headers, body: file, credentials: "omit" });
      if (!stored.ok) return this.#fail(await stored.json());
      this.#attachments.push(attachment.id);
      const entry = document.createElement("li");
      entry.append(this.#preview(attachment));
      this.querySelector("ul").append(entry);
    }

    #post(body, signal) {
      const { url, fetch: given } = this.#options.api;
      return given(url, { method: "POST", headers: { "content-type": "application/json", ...LOCALE }, body: JSON.stringify(body), signal });
    }

    #fail(error) {
      this.querySelector("[role=alert]").textContent = error.message;
      this.#emit("error", { error: new Error(error.message) });
    }

    #emit(name, detail) {
      this.dispatchEvent(new CustomEvent(`chatkit.${name}`, { detail }));
    }
  }

  customElements.define("openai-chatkit", Stand);
})();
