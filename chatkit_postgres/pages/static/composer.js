// The draft of a message: text, files, a quotation. Each conversation has its own.

import { at, h, hasKeyboard, icon, iconButton } from "./dom.js";
import { saveDraft, loadDraft } from "./tab-state.js";

const UPLOADS_AT_ONCE = 3;
export const WAIT = "Wait until the answer is finished, or stop it.";

export class Composer {
  #draft = null;
  #drafts = new Map();
  #files = new Set();
  #quoted = null;
  #unsent = null;
  #elsewhere = new Map();
  #uploads = 0;
  #waiting = [];
  #why = WAIT;

  /**
   * `send(input)` is called with a message of the protocol; `client()` uploads; `showNotice(text)` shows an error,
   * `removeNotice(text)` removes it.
   */
  constructor({ client, choices, send, showNotice, removeNotice }) {
    Object.assign(this, { client, choices, send, showNotice, removeNotice });
    this.text = at("text");
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.text.addEventListener("keydown", (event) => {
      // 229: some browsers only send this code while an input method composes a word.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229 && hasKeyboard()) {
        event.preventDefault();
        this.#submit();
      }
    });
    this.text.addEventListener("input", () => this.#changed());
    at("attach").addEventListener("click", () => at("files").click());
    at("files").addEventListener("change", () => {
      this.#add(at("files").files);
      at("files").value = "";
    });
    this.text.addEventListener("paste", (event) => {
      // Tables and documents are also copied as an image, but the text is meant.
      if (event.clipboardData.files.length && !event.clipboardData.getData("text/plain")) {
        event.preventDefault();
        this.#add(event.clipboardData.files);
      }
    });
    this.#takeDrops(document);
  }

  /** Block sending while a turn is running, or for another reason, which is shown when the user tries to send. */
  allow(isAllowed, why = WAIT) {
    this.isAllowed = isAllowed;
    if (isAllowed) this.removeNotice(this.#why);
    this.#why = why;
    this.#refresh();
  }

  /** Close the composer of a conversation that accepts no messages, for the given reason. */
  close(why) {
    at("composer").hidden = Boolean(why);
    at("closed").hidden = !why;
    at("closed").textContent = why ?? "";
  }

  /** Switch to the draft of a conversation (null: a new one). The current draft is stored for its conversation. */
  turnTo(threadId) {
    if (this.#files.size) this.#elsewhere.set(this.#draft.name, this.#files);
    this.#draft = draftOf(this.client().user, threadId);
    this.#files = this.#elsewhere.get(this.#draft.name) ?? new Set();
    this.#elsewhere.delete(this.#draft.name);
    const { name, user } = this.#draft;
    const draft = this.#drafts.has(name) ? this.#drafts.get(name) : loadDraft(user, threadId);
    const { text, quoted, unsent } = draft ?? { text: "", quoted: null, unsent: null };
    this.#unsent = unsent;
    at("chips").replaceChildren(...[...this.#files].map((entry) => entry.element));
    this.text.value = text;
    this.#showQuoted(quoted);
    this.#fit();
  }

  /** Called when the new conversation has its id. */
  belongTo(threadId) {
    this.#keep(null);
    this.#draft = draftOf(this.#draft.user, threadId);
    this.#changed();
  }

  /** Put words at the end of the text. */
  insert(words) {
    this.text.value = [this.text.value.trimEnd(), words].filter(Boolean).join(" ");
    this.#changed();
    this.text.focus();
  }

  quote(text) {
    this.#showQuoted(text);
    this.#changed();
    this.text.focus();
  }

  get isQuoting() {
    return this.#quoted !== null;
  }

  #showQuoted(text) {
    this.#quoted = text;
    at("quote").hidden = !text;
    at("quote").replaceChildren(...(text
      ? [icon("quote"), h("span", { dir: "auto" }, text), iconButton("close", "Remove the quotation", () => this.quote(null))]
      : []));
  }

  /** Put a message that could not be sent back, before the text written since. */
  #restore({ text, quoted }) {
    this.text.value = [text, this.text.value].filter(Boolean).join("\n");
    this.#showQuoted(this.#quoted ?? quoted);
    this.#changed();
    return text ? "Your text is back in its field." : "";
  }

  /** Drop the files of all users. */
  clear() {
    for (const entry of [this.#files, ...this.#elsewhere.values()].flatMap((files) => [...files])) {
      entry.aborting.abort();
      this.#forget(entry);
    }
    this.#elsewhere.clear();
    this.turnTo(null);
  }

  #submit() {
    const text = this.text.value.trim();
    const files = [...this.#files];
    if (files.some((entry) => !entry.isReady) || (!text && !files.length)) return;
    if (!this.isAllowed) {
      this.showNotice(this.#why, { level: "info" });
      return;
    }
    const input = {
      content: text ? [{ type: "input_text", text }] : [],
      attachments: files.map((entry) => entry.attachment.id),
      quoted_text: this.#quoted,
      inference_options: this.choices.options(),
    };
    const sent = { text, quoted: this.#quoted };
    // A message without a response may have been stored; with the same key, it is stored once. So the key is saved with
    // the draft, also for a reload.
    const same = JSON.stringify(input);
    const key = this.#unsent?.same === same ? this.#unsent.key : crypto.randomUUID();
    this.#unsent = { same, key };
    for (const entry of files) entry.mayBeSent = true;
    this.text.value = "";
    this.#showQuoted(null);
    this.#changed();
    this.send(input, {
      key,
      attachments: files.map((entry) => entry.attachment),
      // The files are removed when the message is stored; a refused message leaves them here.
      stored: () => {
        this.#unsent = null;
        this.choices.used();
        files.forEach((entry) => this.#forget(entry));
        this.#changed();
      },
      // Records the outcome. After a final error, the same key would get the same response.
      refused: (isFinal) => {
        if (isFinal) this.#unsent = null;
        return this.#restore(sent);
      },
    });
  }

  #changed() {
    const { value: text } = this.text;
    const isEmpty = !text && !this.#quoted && !this.#unsent;
    this.#keep(isEmpty ? null : { text, quoted: this.#quoted, unsent: this.#unsent });
    this.#fit();
  }

  #keep(draft) {
    this.#drafts.set(this.#draft.name, draft);
    saveDraft(this.#draft.user, this.#draft.threadId, draft);
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
    if (at("attach").hidden) return this.showNotice("This server takes no files.", { level: "info" });
    for (const file of files) this.#upload(file);
    return hasKeyboard() && this.text.focus();
  }

  async #upload(file) {
    const aborting = new AbortController();
    const address = file.type.startsWith("image/") ? URL.createObjectURL(file) : null;
    const entry = { files: this.#files, isReady: false, attachment: null, aborting, address };
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
        // The file was removed before its announcement had a response.
        if (!entry.files.has(entry)) this.#delete(client, entry);
      };
      await this.#inTurn(() => entry.files.has(entry) && client.upload(file, { signal: aborting.signal, announced }));
      entry.isReady = true;
      entry.element.classList.remove("uploading");
      entry.element.removeAttribute("aria-busy");
    } catch (error) {
      if (!entry.files.has(entry)) return;
      this.#forget(entry);
      this.showNotice(`${file.name}: ${error.message}`);
      // Delete the failed upload's attachment. If that fails too, the server's clean-up removes it.
      if (entry.attachment) await client.call("attachments.delete", { attachment_id: entry.attachment.id }).catch(() => {});
    }
    this.#refresh();
  }

  /** A few uploads at once, which is all that the server accepts of one user. */
  async #inTurn(upload) {
    if (this.#uploads >= UPLOADS_AT_ONCE) await new Promise((resolve) => this.#waiting.push(resolve));
    else this.#uploads++;
    try {
      return await upload();
    } finally {
      if (this.#waiting.length) this.#waiting.shift()();
      else this.#uploads--;
    }
  }

  async #remove(entry) {
    entry.aborting.abort();
    this.#forget(entry);
    if (hasKeyboard()) this.text.focus();
    // A file that may have been stored with a message must not be deleted.
    if (entry.attachment && !entry.mayBeSent) await this.#delete(this.client(), entry);
  }

  async #delete(client, { attachment }) {
    await client.call("attachments.delete", { attachment_id: attachment.id }).catch((error) => this.showNotice(error.message));
  }

  #forget(entry) {
    entry.files.delete(entry);
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

const draftOf = (user, threadId) => ({ user, threadId, name: JSON.stringify([user, threadId]) });
