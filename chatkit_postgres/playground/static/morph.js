// Makes an element that is there look like one that was made anew, and touches only what differs: what is selected in
// it stays selected, what is scrolled stays where it is, and a button that is being pressed stays under the finger.

/** Put `fresh` in the place of `there`, or make that look like it; `fresh` is used up. */
export function become(there, fresh) {
  if (there.nodeName !== fresh.nodeName || there.className !== fresh.className) there.replaceWith(fresh);
  else if (there.nodeType === Node.TEXT_NODE) write(there, fresh.data);
  else if (!fresh.matches("button")) morph(there, fresh);
  // One that shows an icon works on what is around it; any other may be about something else now.
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

/** Mostly it is the same text with more of it; what is appended moves no selection. */
function write(text, data) {
  if (data.startsWith(text.data)) text.appendData(data.slice(text.length));
  else text.data = data;
}
