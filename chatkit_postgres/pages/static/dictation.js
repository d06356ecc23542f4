// Records speech and puts its text into the message field.

import { announce, at, icon } from "./dom.js";

const MAX_MS = 5 * 60 * 1000;

/** `begun()` is called when a recording begins, and returns what is called with its text; `showNotice(text)` shows an error. */
export function watchDictation({ client, begun, showNotice }) {
  const button = at("dictate");
  let recorder = null;
  button.addEventListener("click", async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    // The browser may ask the user first.
    button.disabled = true;
    try {
      recorder = await record();
    } catch {
      showNotice("The page cannot listen: there is no microphone, or the browser does not allow it.");
      return;
    } finally {
      button.disabled = false;
    }
    const take = begun();
    show(true);
    const chunks = [];
    const timer = setTimeout(() => recorder?.stop(), MAX_MS);
    recorder.addEventListener("dataavailable", ({ data }) => chunks.push(data));
    recorder.addEventListener("stop", async () => {
      clearTimeout(timer);
      const { mimeType, stream } = recorder;
      for (const track of stream.getTracks()) track.stop();
      recorder = null;
      show(false);
      button.disabled = true;
      try {
        const audio_base64 = await base64Of(new Blob(chunks, { type: mimeType }));
        const { text } = await client().call("input.transcribe", { audio_base64, mime_type: mimeType });
        take(text);
      } catch (error) {
        showNotice(error.message);
      } finally {
        button.disabled = false;
      }
    });
    recorder.start();
  });

  function show(isOn) {
    const label = isOn ? "Stop dictating" : "Dictate";
    button.replaceChildren(icon(isOn ? "stop" : "microphone"));
    button.setAttribute("aria-pressed", String(isOn));
    button.setAttribute("aria-label", label);
    button.title = label;
    announce(isOn ? "Recording" : "");
  }
}

async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  return new MediaRecorder(stream);
}

function base64Of(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
