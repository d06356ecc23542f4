// Applies thread.item.updated events, of the ten kinds of the protocol, to items.

export function applyUpdate(item, update) {
  switch (update.type) {
    case "assistant_message.content_part.added":
    case "assistant_message.content_part.done":
      item.content[update.content_index] = update.content;
      break;
    case "assistant_message.content_part.text_delta":
      part(item, update).text += update.delta;
      break;
    case "assistant_message.content_part.annotation_added":
      part(item, update).annotations[update.annotation_index] = update.annotation;
      break;
    case "widget.root.updated":
      item.widget = update.widget;
      break;
    case "widget.component.updated":
      item.widget = withComponent(item.widget, update.component_id, () => update.component);
      break;
    case "widget.streaming_text.value_delta":
      item.widget = withComponent(item.widget, update.component_id, (found) => ({
        ...found,
        value: found.value + update.delta,
        streaming: !update.done,
      }));
      break;
    case "workflow.task.added":
    case "workflow.task.updated":
      item.workflow.tasks[update.task_index] = update.task;
      break;
    case "generated_image.updated":
      item.image = update.image;
      item.progress = update.progress;
      break;
  }
}

function part(item, update) {
  for (let place = 0; place <= update.content_index; place++) item.content[place] ??= { type: "output_text", text: "", annotations: [] };
  return item.content[update.content_index];
}

function withComponent(node, id, change) {
  if (node?.id === id) return change(node);
  if (!node?.children) return node;
  const children = Array.isArray(node.children)
    ? node.children.map((child) => withComponent(child, id, change))
    : withComponent(node.children, id, change);
  return { ...node, children };
}

/** An item as text: what is copied, quoted and read aloud. */
export function textOf(item) {
  switch (item.type) {
    case "user_message":
      return item.content.map((piece) => (piece.type === "input_tag" ? `@${piece.text}` : piece.text)).join("");
    case "assistant_message":
      return item.content.map((piece) => piece.text).join("\n\n");
    case "widget":
      return item.copy_text ?? "";
    default:
      return "";
  }
}
