// Draws workflows and single tasks, the steps towards an answer.

import { h, icon } from "./dom.js";
import { MarkdownView } from "./markdown.js";

const ICONS = { web_search: "search", file: "file", thought: "spark", image: "file", custom: "check" };
const NAMES = { web_search: "Searched", file: "Read files", thought: "Thought", image: "Looked at a picture", custom: "Step" };

export function drawWorkflow({ workflow }, isRunning, wasOpen) {
  const [only, ...others] = workflow.tasks.filter(Boolean);
  // There would be nothing to unfold.
  if (!isRunning && only && !others.length && !workflow.summary && isPlain(only)) return drawTask(only);
  const isOpen = wasOpen ?? (isRunning || workflow.expanded);
  return h("details", { class: "steps", open: isOpen },
    h("summary", {}, icon("spark"), isRunning ? `${latest(workflow) ?? "Working"} …` : summaryOf(workflow)),
    h("ol", {}, workflow.tasks.filter(Boolean).map((task) => h("li", {}, drawTask(task)))));
}

export function drawTask(task) {
  const isLoading = task.status_indicator === "loading";
  return h("div", { class: `task ${isLoading ? "loading" : ""}` },
    icon(ICONS[task.type] ?? "check"),
    h("div", {},
      h("p", { class: "task-title" }, titleOf(task), isLoading && h("span", { class: "hidden" }, " (under way)")),
      task.content && contentOf(task),
      task.queries?.length > 0 && h("p", { class: "caption" }, task.queries.map((query) => `“${query}”`).join(" ")),
      task.sources?.length > 0 && h("ul", { class: "plain-list" }, task.sources.map((source) => h("li", {}, drawSource(source))))));
}

export const isWebAddress = (url) => /^https?:/.test(url ?? "");

export function drawSource(source) {
  if (source.type === "url" && isWebAddress(source.url)) {
    return h("a", { href: source.url, target: "_blank", rel: "noopener noreferrer" }, source.title,
      source.attribution && h("span", { class: "caption" }, ` ${source.attribution}`));
  }
  return h("span", {}, source.title, source.filename && h("span", { class: "caption" }, ` ${source.filename}`));
}

const isPlain = ({ content, queries, sources }) => !content && !queries?.length && !sources?.length;

function titleOf(task) {
  return task.title ?? task.title_query ?? NAMES[task.type] ?? "Step";
}

function contentOf(task) {
  if (task.type !== "thought") return h("p", { class: "caption" }, task.content);
  const view = new MarkdownView();
  view.show(task.content);
  return view.element;
}

function latest(workflow) {
  const task = workflow.tasks.findLast((one) => one?.status_indicator === "loading") ?? workflow.tasks.at(-1);
  return task && titleOf(task);
}

const lasting = (seconds) => (seconds < 1 ? "a moment" : seconds === 1 ? "a second" : `${seconds} seconds`);

/** "5 steps" and "3 s", as far as they are known and say something. */
function measured({ summary, tasks }) {
  const seconds = summary?.duration;
  return [tasks.length > 1 && `${tasks.length} steps`, seconds >= 1 && `${seconds} s`].filter(Boolean);
}

function summaryOf(workflow) {
  const { summary, tasks } = workflow;
  if (summary?.title) return [summary.title, ...measured(workflow)].join(" · ");
  if (workflow.type === "reasoning" && Number.isFinite(summary?.duration)) return `Thought for ${lasting(summary.duration)}`;
  if (tasks.length === 1) return titleOf(tasks[0]);
  return `${tasks.length} steps${summary?.duration >= 1 ? ` in ${lasting(summary.duration)}` : ""}`;
}
