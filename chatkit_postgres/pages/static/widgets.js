// Draws ChatKit's widgets: trees of components, each drawn by the function of its type.

import { h, icon } from "./dom.js";
import { MarkdownView } from "./markdown.js";

const SPACE = 4;
const COLOURS = new Set(["secondary", "success", "danger", "warning", "info", "discovery", "primary", "caution"]);
let drawn = 0;

/** The element of a widget. `act(action, values)` is called for each of its actions, with the values of its form. */
export function drawWidget(root, act) {
  const element = h("div", { class: "widget-frame" });
  element.addEventListener("submit", (event) => event.preventDefault());
  const context = {
    prefix: `w${++drawn}`,
    isInForm: false,
    labelled: labelledFields(root),
    act: (action, control) => act(action, valuesAround(control)),
  };
  try {
    element.append(draw(root, context));
  } catch (error) {
    console.warn(error);
    element.replaceChildren(h("p", { class: "caption" }, "(This widget cannot be drawn.)"));
  }
  return element;
}

const COMPONENTS = {
  Card: (node, context) => {
    const isForm = node.asForm && !context.isInForm;
    const inside = isForm ? { ...context, isInForm: true } : context;
    const { cancel, confirm } = node;
    const content = [
      status(node),
      children(node, inside),
      (cancel || confirm) && h("div", { class: "row" },
        cancel && button({ label: cancel.label, onClickAction: cancel.action }, inside),
        confirm && button({ label: confirm.label, onClickAction: confirm.action, submit: isForm, style: "primary" }, inside)),
    ];
    return isForm ? form("card", confirm?.action, content, context) : h("div", { class: "card" }, content);
  },
  Basic: (node, context) => h("div", { class: "col" }, children(node, context)),
  Box: (node, context) => box(node.direction === "row" ? "row" : "col", node, context),
  Row: (node, context) => box("row", node, context),
  Col: (node, context) => box("col", node, context),
  Transition: (node, context) => h("div", {}, children(node, context)),
  Form: (node, context) =>
    form(node.direction === "row" ? "row" : "col", node.onSubmitAction, children(node, { ...context, isInForm: true }), context),
  ListView: (node, context) => listView(node, context),
  ListViewItem: (node, context) =>
    h("li", {}, node.onClickAction
      ? h("button", { type: "button", class: "list-row", onclick: (event) => context.act(node.onClickAction, event.currentTarget) }, children(node, context))
      : h("div", { class: "list-row" }, children(node, context))),
  Text: (node, context) => node.editable ? editableText(node, context) : h("p", { class: `text ${weightOf(node)} ${colourOf(node)} ${node.truncate ? "truncate" : ""}` }, node.value),
  Title: (node) => h("p", { class: `widget-title ${weightOf(node)}` }, node.value),
  Caption: (node) => h("p", { class: "caption" }, node.value),
  Markdown: (node) => {
    const view = new MarkdownView();
    view.show(node.value);
    return view.element;
  },
  Badge: (node) => h("span", { class: `badge ${colourOf(node)}` }, node.label),
  Icon: () => icon("spark"),
  Image: (node) => picture(node),
  Divider: () => h("hr"),
  Spacer: () => h("span", { class: "spacer" }),
  Button: (node, context) => button(node, context),
  Label: (node, context) => h("label", { for: idOf(node.fieldName, context) }, node.value),
  Input: (node, context) =>
    h("input", { ...field(node, context), type: node.inputType ?? "text", value: node.defaultValue }),
  Textarea: (node, context) => h("textarea", { ...field(node, context), rows: node.rows ?? 3 }, node.defaultValue ?? ""),
  DatePicker: (node, context) =>
    h("input", { ...field(node, context), type: "date", value: day(node.defaultValue), min: day(node.min), max: day(node.max) }),
  Select: (node, context) =>
    h("select", field(node, context),
      // Without it, a browser preselects the first option.
      (node.placeholder || !node.defaultValue) && h("option", { value: "" }, node.placeholder ?? ""),
      node.options.map((option) =>
        h("option", { value: option.value, selected: option.value === node.defaultValue, disabled: option.disabled }, option.label))),
  Checkbox: (node, context) =>
    h("label", { class: "choice" },
      h("input", { ...field(node, context), type: "checkbox", checked: node.defaultChecked, placeholder: null }), node.label),
  RadioGroup: (node, context) =>
    h("fieldset", { class: node.direction === "row" ? "row" : "col", "aria-label": node.ariaLabel ?? node.name },
      (node.options ?? []).map((option) =>
        h("label", { class: "choice" },
          h("input", {
            ...field(node, context), id: null, "aria-label": null, type: "radio", value: option.value,
            checked: option.value === node.defaultValue, disabled: option.disabled || node.disabled,
          }),
          option.label))),
  Chart: (node) => chart(node),
};

function draw(node, context) {
  const component = Object.hasOwn(COMPONENTS, node.type) && COMPONENTS[node.type];
  if (component) return component(node, context);
  return h("div", {}, h("p", { class: "caption" }, `(${node.type} is not drawn here)`), children(node, context));
}

function children(node, context) {
  return [node.children ?? []].flat().map((child) => draw(child, context));
}

/** The first rows of a long list, and a button for the rest. */
function listView(node, context) {
  const rows = children(node, context);
  const limit = Number.isInteger(node.limit) ? node.limit : rows.length;
  for (const row of rows.slice(limit)) row.hidden = true;
  const more = rows.length > limit && h("button", { type: "button", onclick: (event) => {
    for (const row of rows) row.hidden = false;
    event.currentTarget.remove();
    const next = rows[limit].querySelector("button") ?? rows[limit];
    if (next === rows[limit]) next.tabIndex = -1;
    next.focus();
  } }, `Show ${rows.length - limit} more`);
  return h("div", { class: "card list" }, status(node), h("ul", {}, rows), more);
}

/** An editable text, which is a value of its form. */
function editableText(node, context) {
  const { name, required, placeholder, pattern } = node.editable;
  const about = field({ name, required, placeholder, label: null }, context);
  if (node.minLines > 1) return h("textarea", { ...about, rows: node.minLines }, node.value);
  return h("input", { ...about, type: "text", value: node.value, pattern });
}

function box(kind, node, context) {
  const element = h("div", { class: kind }, children(node, context));
  // Through the object model, which a strict policy for styles allows.
  if (node.gap !== undefined) element.style.gap = typeof node.gap === "number" ? `${node.gap * SPACE}px` : node.gap;
  if (node.justify) element.style.justifyContent = { between: "space-between", around: "space-around" }[node.justify] ?? node.justify;
  if (node.align) element.style.alignItems = node.align;
  return element;
}

function form(kind, action, content, context) {
  return h("form", { class: kind, onsubmit: (event) => action && context.act(action, event.currentTarget) }, content);
}

/** The values of the form around an element, or of the element itself if it is a field outside of any form. */
function valuesAround(element) {
  const around = element?.closest("form");
  if (around) return valuesOf([...around.querySelectorAll("[data-name]")]);
  return element?.dataset.name ? valuesOf([element]) : undefined;
}

/** Dots in the name of a field nest: `a.b` is {a: {b: …}}. */
function valuesOf(controls) {
  // Without a prototype, whose members a field could otherwise name.
  const values = Object.create(null);
  for (const control of controls) {
    if (control.type === "radio" && !control.checked) continue;
    const path = control.dataset.name.split(".");
    const last = path.pop();
    let holder = values;
    for (const part of path) {
      if (typeof holder[part] !== "object") holder[part] = Object.create(null);
      holder = holder[part];
    }
    holder[last] = control.type === "checkbox" ? control.checked : control.value;
  }
  return values;
}

function button(node, context) {
  const isSubmit = Boolean(node.submit);
  return h("button", {
    type: isSubmit ? "submit" : "button",
    class: isSubmit || node.style === "primary" ? "primary" : "",
    disabled: node.disabled,
    "aria-label": node.label ? null : "Button",
    onclick: (event) => !isSubmit && node.onClickAction && context.act(node.onClickAction, event.currentTarget),
  }, node.iconStart && icon("spark"), node.label ?? "", node.iconEnd && icon("spark"));
}

function field(node, context) {
  const changed = node.onChangeAction && { onchange: (event) => context.act(node.onChangeAction, event.currentTarget) };
  return {
    id: idOf(node.name, context), disabled: node.disabled, required: node.required, placeholder: node.placeholder,
    // Several widgets may have fields of the same name.
    name: idOf(node.name, context), data: { name: node.name }, ...changed,
    "aria-label": node.label || context.labelled.has(node.name) ? null : (node.placeholder ?? node.name),
  };
}

function labelledFields(node, found = new Set()) {
  if (node.type === "Label") found.add(node.fieldName);
  for (const child of [node.children ?? []].flat()) labelledFields(child, found);
  return found;
}

function picture(node) {
  // Loading an image would tell its host who reads the page; the page's policy forbids it anyway.
  if (!isOwn(node.src)) {
    return h("p", { class: "caption" }, `Picture of another host: ${node.alt ?? node.src}`);
  }
  const image = h("img", { src: node.src, alt: node.alt ?? "" });
  for (const [name, value] of [["width", node.width ?? node.size], ["height", node.height ?? node.size]]) {
    if (value !== undefined) image.style[name] = typeof value === "number" ? `${value}px` : value;
  }
  return image;
}

/** A chart as the table of its figures. */
function chart(node) {
  const key = node.xAxis?.dataKey ?? node.xAxis;
  const names = node.series.map((series) => series.label ?? series.dataKey);
  return h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Chart" },
    h("table", {},
      h("thead", {}, h("tr", {}, [key, ...names].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, node.data.map((row) => h("tr", {}, [key, ...node.series.map((one) => one.dataKey)].map((name) => h("td", {}, String(row[name] ?? ""))))))));
}

const isOwn = (address) =>
  /^data:image\//.test(address) || (URL.canParse(address, location.href) && new URL(address, location.href).origin === location.origin);
const status = (node) => node.status && h("p", { class: "caption" }, node.status.text);
const idOf = (name, context) => `${context.prefix}-${name}`;
const day = (value) => value?.slice(0, 10);
const weightOf = (node) => (["medium", "semibold", "bold"].includes(node.weight) ? "strong" : "");
const colourOf = (node) => (COLOURS.has(node.color) ? node.color : "");
