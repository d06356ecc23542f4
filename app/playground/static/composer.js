// What is about to be said: text, files, a quotation.

import { at, h, icon, iconButton } from "./dom.js";

export class Composer {
  #files = new Set();
  #quoted = null;
  #unsent = null;

  /** `send(input)` is called with a message as the protocol wants it; `client()` is who uploads, `where()` the conversation; `tell(text)` shows an error. */
  constructor({ client, where, send, tell }) {
    Object.assign(this, { client, where, send, tell });
    this.text = at("text");
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.text.addEventListener("keydown", (event) => {
      // 229: some browsers say only so that a word is being composed.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
        event.preventDefault();
        this.#submit();
      }
    });
    this.text.addEventListener("input", () => this.#fit());
    at("attach").addEventListener("click", () => at("files").click());
    at("files").addEventListener("change", () => {
      this.#add(at("files").files);
      at("files").value = "";
    });
    this.text.addEventListener("paste", (event) => {
      // Tables and documents are copied as a picture, too; who pastes them means the text.
      if (event.clipboardData.files.length && !event.clipboardData.getData("text/plain")) {
        event.preventDefault();
        this.#add(event.clipboardData.files);
      }
    });
    this.#takeDrops(document);
  }

  /** Not while a turn is running. */
  allow(isAllowed) {
    this.isAllowed = isAllowed;
    this.#refresh();
  }

  /** In a conversation that takes nothing, for the reason given. */
  close(why) {
    at("composer").hidden = Boolean(why);
    at("closed").hidden = !why;
    at("closed").textContent = why ?? "";
  }

  quote(text) {
    this.#quoted = text;
    at("quote").hidden = !text;
    at("quote").replaceChildren(...(text
      ? [icon("quote"), h("span", {}, text), iconButton("close", "Remove the quotation", () => this.quote(null))]
      : []));
    if (text) this.text.focus();
  }

  /** Put back what could not be sent, before what was written meanwhile. */
  #restore({ text, quoted }) {
    this.text.value = [text, this.text.value].filter(Boolean).join("\n");
    this.quote(this.#quoted ?? quoted);
    this.#fit();
  }

  clear() {
    this.text.value = "";
    this.quote(null);
    for (const entry of [...this.#files]) {
      entry.aborting.abort();
      this.#forget(entry);
    }
    this.#fit();
  }

  #submit() {
    const text = this.text.value.trim();
    const files = [...this.#files];
    if (files.some((entry) => !entry.isReady) || (!text && !files.length)) return;
    if (!this.isAllowed) {
      this.tell("Wait until the answer is finished, or stop it.", { level: "info" });
      return;
    }
    const input = {
      content: text ? [{ type: "input_text", text }] : [],
      attachments: files.map((entry) => entry.attachment.id),
      quoted_text: this.#quoted,
      inference_options: {},
    };
    const sent = { text, quoted: this.#quoted };
    // Nobody knows whether a message that got no answer was stored; under its old key it is stored once.
    const same = JSON.stringify([this.client().user, this.where(), input]);
    const key = this.#unsent?.same === same ? this.#unsent.key : crypto.randomUUID();
    this.#unsent = { same, key };
    for (const entry of files) entry.mayBeSent = true;
    this.text.value = "";
    this.quote(null);
    this.#fit();
    this.send(input, {
      key,
      // The files wait here until the message is stored; a refused one keeps them.
      stored: () => {
        this.#unsent = null;
        files.forEach((entry) => this.#forget(entry));
      },
      refused: () => this.#restore(sent),
    });
  }

  #fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, 240)}px`;
    this.#refresh();
  }

  #refresh() {
    const isUploading = [...this.#files].some((entry) => !entry.isReady);
    at("send").disabled = !this.isAllowed || isUploading || (!this.text.value.trim() && !this.#files.size);
  }

  #add(files) {
    for (const file of files) this.#upload(file);
    this.text.focus();
  }

  async #upload(file) {
    const aborting = new AbortController();
    const address = file.type.startsWith("image/") ? URL.createObjectURL(file) : null;
    const entry = { isReady: false, attachment: null, aborting, address };
    entry.element = h("li", { class: "chip uploading", "aria-busy": "true" },
      address ? h("img", { src: address, alt: "", class: "preview" }) : icon("file"),
      h("span", {}, file.name),
      iconButton("close", `Remove ${file.name}`, () => this.#remove(entry)));
    at("chips").append(entry.element);
    this.#files.add(entry);
    this.#refresh();
    const client = this.client();
    try {
      const announced = (attachment) => {
        entry.attachment = attachment;
        // It was taken back before it was known.
        if (!this.#files.has(entry)) this.#delete(client, entry);
      };
      await client.upload(file, { signal: aborting.signal, announced });
      entry.isReady = true;
      entry.element.classList.remove("uploading");
      entry.element.removeAttribute("aria-busy");
    } catch (error) {
      if (!this.#files.has(entry)) return;
      this.#forget(entry);
      this.tell(`${file.name}: ${error.message}`);
      // What will not come is not waited for; whatever becomes of this, a clean-up comes by.
      if (entry.attachment) await client.call("attachments.delete", { attachment_id: entry.attachment.id }).catch(() => {});
    }
    this.#refresh();
  }

  async #remove(entry) {
    entry.aborting.abort();
    this.#forget(entry);
    this.text.focus();
    // One that may have been stored with a message is that message's.
    if (entry.attachment && !entry.mayBeSent) await this.#delete(this.client(), entry);
  }

  async #delete(client, { attachment }) {
    await client.call("attachments.delete", { attachment_id: attachment.id }).catch((error) => this.tell(error.message));
  }

  #forget(entry) {
    this.#files.delete(entry);
    entry.element.remove();
    if (entry.address) URL.revokeObjectURL(entry.address);
    this.#refresh();
  }

  #takeDrops(area) {
    const brings = (event) => [...event.dataTransfer.types].includes("Files");
    let depth = 0;
    const show = (change) => {
      depth = Math.max(0, depth + change);
      at("drop").hidden = depth === 0;
    };
    area.addEventListener("dragenter", (event) => brings(event) && show(1));
    area.addEventListener("dragleave", (event) => brings(event) && show(-1));
    area.addEventListener("dragover", (event) => brings(event) && event.preventDefault());
    area.addEventListener("drop", (event) => {
      if (!brings(event)) return;
      event.preventDefault();
      show(-depth);
      if (!at("composer").hidden) this.#add(event.dataTransfer.files);
    });
  }
}
