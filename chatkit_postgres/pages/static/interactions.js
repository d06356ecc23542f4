// Handles interactions with an assistant's items: buttons, questions, feedback, files, client tools.

import { announce, h } from "./dom.js";
import { saveRating, loadRating } from "./tab-state.js";

// The client tools of this page.
const CLIENT_TOOLS = {
  get_page_title: () => ({ title: document.title }),
};

export class Interactions {
  /** `action(type, payload)` is called for an action that a widget leaves to the page. */
  constructor({ client, log, conversation, action }) {
    Object.assign(this, { client, log, conversation, action });
  }

  async rate(item, kind) {
    return this.conversation.guarded(async () => {
      await this.client().call("items.feedback", { thread_id: this.conversation.threadId, item_ids: [item.id], kind });
      saveRating(this.client().user, item.id, kind);
      announce("Thank you for the feedback.");
      return true;
    });
  }

  rated(item) {
    return loadRating(this.client().user, item.id);
  }

  /** Open an image at full size in a new tab; download any other file. */
  async openFile({ id, type, name }) {
    // Synchronously, or the browser blocks it as a pop-up.
    const tab = type === "image" ? window.open("", "_blank") : null;
    if (tab) tab.opener = null;
    await this.conversation.guarded(async () => {
      try {
        const { download_url: address } = await this.client().describe(id);
        if (tab) tab.location.replace(address);
        else h("a", { href: address, download: name }).click();
      } catch (error) {
        tab?.close();
        throw error;
      }
    });
  }

  async act(item, action, values, element) {
    // As in ChatKit, the payload of the action takes precedence over the values of the form.
    const payload = values ? { ...values, ...action.payload } : action.payload;
    if (action.handler === "client") {
      this.action(action.type, payload);
      return;
    }
    // One at a time, so that a double click is one action. One that does not stream can run during an answer.
    if (element.dataset.isActing || (action.streaming !== false && this.conversation.isBusy())) return;
    element.dataset.isActing = "yes";
    const params = { thread_id: this.conversation.threadId, item_id: item.id, action: { type: action.type, payload } };
    try {
      if (action.streaming === false) await this.conversation.guarded(() => this.#actAtOnce(params));
      else await this.conversation.run("threads.custom_action", params);
    } finally {
      delete element.dataset.isActing;
    }
  }

  async #actAtOnce(params) {
    const isStillOpen = this.conversation.whileOpen();
    const { updated_item: updated } = await this.client().call("threads.sync_custom_action", params);
    if (updated && isStillOpen()) this.conversation.items.put(updated, false);
  }

  async answer(item, submission) {
    if (this.conversation.isBusy()) return;
    const stored = () => this.conversation.items.put({ ...item, status: submission.status, inputs: withAnswers(item, submission) }, false);
    const params = { thread_id: this.conversation.threadId, item_id: item.id, input: submission };
    await this.conversation.run("threads.add_structured_input", params, { stored });
  }

  /** Called automatically when an answer has ended with the call, or by the user. */
  async callTool(item, isAutomatic = false) {
    if (this.conversation.isBusy()) return;
    const tool = Object.hasOwn(CLIENT_TOOLS, item.name) && CLIENT_TOOLS[item.name];
    const result = tool ? tool(item.arguments) : { error: `This page has no tool ${item.name}.` };
    // The stream has the answer only, and not the call again.
    const stored = () => this.conversation.items.put({ ...item, status: "completed", output: result }, false);
    await this.conversation.run("threads.add_client_tool_output", { thread_id: this.conversation.threadId, result }, { stored, isAutomatic });
  }
}

const withAnswers = (item, { answers }) => item.inputs.map((question) => ({ ...question, answer: answers[question.id] ?? null }));
