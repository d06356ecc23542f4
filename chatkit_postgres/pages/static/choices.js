// What the server lets a message choose: a model, a tool, files.

import { at, h } from "./dom.js";

export class Choices {
  #defaultModel = null;

  /** `allowed` is the `composer` of GET /api/client-config. */
  show(allowed) {
    this.#defaultModel = allowed.models.find((model) => model.default)?.id ?? "";
    const models = this.#defaultModel ? allowed.models : [{ id: "", label: "Default model" }, ...allowed.models];
    fill(at("choose-model"), models, allowed.models.length > 0);
    at("choose-model").value = this.#defaultModel;
    fill(at("choose-tool"), [{ id: "", label: "No tool" }, ...allowed.tools], allowed.tools.length > 0);
    at("attach").hidden = !allowed.attachments.enabled;
    const canDrop = allowed.attachments.enabled && matchMedia("(hover: hover)").matches;
    at("text").placeholder = canDrop ? "Say something, or drop a file here" : "Say something";
    at("files").accept = Object.entries(allowed.attachments.accept).flat(2).join(",");
    at("dictate").hidden = !allowed.dictation.enabled || !navigator.mediaDevices;
  }

  /** The `inference_options` of the next message. */
  options() {
    const model = at("choose-model").value, tool = at("choose-tool").value;
    return { ...(model !== this.#defaultModel && model && { model }), ...(tool && { tool_choice: { id: tool } }) };
  }

  /** Reset the tool once its message is stored. Not before: with its key, a message must be sent again as it was. */
  used() {
    at("choose-tool").value = "";
  }
}

function fill(list, options, isShown) {
  list.replaceChildren(...options.map(({ id, label }) => h("option", { value: id }, label)));
  list.hidden = !isShown;
}
