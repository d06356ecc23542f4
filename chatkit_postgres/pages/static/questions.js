// Structured input: questions with choices and free text, answered or skipped.

import { h } from "./dom.js";
import { saveAnswers, loadAnswers } from "./tab-state.js";

let drawn = 0;

/** `answer(submission)` is called with the input of the protocol: {status, answers: {id: {values, skipped}}}. */
export function drawQuestions(item, answer) {
  if (item.status !== "pending") {
    saveAnswers(item.id, null);
    return answered(item);
  }
  const prefix = `q${++drawn}`;
  const fields = item.inputs.map((question, number) => drawQuestion(question, `${prefix}-${number}`));
  const submit = h("button", { type: "submit", class: "primary", disabled: true }, "Answer");
  const form = h("form", { class: "card questions" }, fields.map((field) => field.element),
    h("div", { class: "row" },
      submit,
      h("button", { type: "button", onclick: () => answer({ status: "skipped", answers: {} }) }, "Skip")));
  // Without any answer, the questions are skipped.
  const refresh = () => (submit.disabled = !fields.some((field) => field.values().length));
  for (const kind of ["input", "change"]) {
    form.addEventListener(kind, () => {
      saveAnswers(item.id, fields.map((field) => field.values()));
      refresh();
    });
  }
  loadAnswers(item.id)?.forEach((values, number) => fields[number]?.fill(values));
  refresh();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const answers = {};
    item.inputs.forEach((question, number) => {
      const values = fields[number].values();
      answers[question.id] = { values, skipped: values.length === 0 };
    });
    answer({ status: "answered", answers });
  });
  return form;
}

function drawQuestion(question, name) {
  if (question.type === "freeform") {
    const text = h("textarea", { id: name, rows: 2, dir: "auto", "aria-describedby": question.description ? `${name}-more` : null });
    return {
      element: h("div", { class: "col" }, h("label", { for: name }, question.question), text,
        question.description && h("p", { class: "caption", id: `${name}-more` }, question.description)),
      values: () => (text.value.trim() ? [text.value.trim()] : []),
      fill: ([value = ""]) => (text.value = value),
    };
  }
  const kind = question.multiple ? "checkbox" : "radio";
  const boxes = question.options.map((option) => h("input", { type: kind, name, value: option.value }));
  const other = h("input", { type: "text", "aria-label": `${question.question} Something else`, placeholder: "Something else" });
  // Typing into the field chooses its option, and the other way round.
  other.addEventListener("input", () => {
    if (!question.multiple && other.value) boxes.forEach((box) => (box.checked = false));
  });
  boxes.forEach((box) => box.addEventListener("change", () => {
    if (!question.multiple) other.value = "";
  }));
  return {
    element: h("fieldset", {}, h("legend", {}, question.question),
      boxes.map((box) => h("label", { class: "choice" }, box, box.value)), other),
    values: () => [...boxes.filter((box) => box.checked).map((box) => box.value), other.value.trim()].filter(Boolean),
    fill: (values) => {
      for (const box of boxes) box.checked = values.includes(box.value);
      other.value = values.find((value) => !boxes.some((box) => box.value === value)) ?? "";
    },
  };
}

function answered(item) {
  if (item.status === "skipped") return h("p", { class: "caption" }, "You skipped the questions.");
  return h("dl", { class: "card questions" }, item.inputs.map((question) => {
    const values = question.answer?.values ?? [];
    return h("div", {}, h("dt", {}, question.question), h("dd", { dir: "auto" }, values.length ? values.join(", ") : "no answer"));
  }));
}
