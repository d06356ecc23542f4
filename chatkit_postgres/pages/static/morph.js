// Updates an existing element to match a new one, and changes only the differences, so that selections, scroll positions
// and pressed buttons are preserved.

/** Replace `there` with `fresh`, or update it to match; `fresh` must not be used afterwards. */
export function become(there, fresh) {
  if (there.nodeName !== fresh.nodeName || there.className !== fresh.className) there.replaceWith(fresh);
  else if (there.nodeType === Node.TEXT_NODE) write(there, fresh.data);
  else if (!fresh.matches("button")) morph(there, fresh);
  // A button with an icon acts on the elements around it; any other may have a new purpose.
  else if (!fresh.matches(".icon-button") && !there.isEqualNode(fresh)) there.replaceWith(fresh);
}

function morph(there, fresh) {
  for (const { name } of [...there.attributes]) if (!fresh.hasAttribute(name)) there.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, place) => {
    if (there.childNodes[place]) become(there.childNodes[place], node);
    else there.append(node);
  });
  while (there.childNodes.length > wanted.length) there.lastChild.remove();
}

/** Usually the text has only grown, and appending moves no selection. */
function write(text, data) {
  if (data.startsWith(text.data)) text.appendData(data.slice(text.length));
  else text.data = data;
}
