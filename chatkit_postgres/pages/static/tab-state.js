// Stores state of conversations that the protocol does not have: drafts, scroll positions, failed endings and ratings. In
// the session storage of the tab; state that belongs to no item is stored per user.

const nameOf = (...parts) => JSON.stringify(parts);
let storage = null;

/** Keep everything in this page alone: a page in an iframe does not know which user the next token is for. */
export function storeInMemory() {
  const known = new Map();
  storage = { getItem: (name) => known.get(name), setItem: (name, value) => known.set(name, value), removeItem: (name) => known.delete(name) };
}

/** `draft` is {text, quoted, unsent} of a message that is not known to be stored yet (see composer.js), or null. */
export function saveDraft(user, threadId, draft) {
  save(nameOf("draft", user, threadId), draft && JSON.stringify(draft));
}

export function loadDraft(user, threadId) {
  return load(nameOf("draft", user, threadId));
}

/** `place` is {id, top} of the item at the upper edge, or null at the end. */
export function savePlace(user, threadId, place) {
  save(nameOf("place", user, threadId), place && JSON.stringify(place));
}

export function loadPlace(user, threadId) {
  return load(nameOf("place", user, threadId));
}

/** `answers` are those of a form that was not sent yet: a list for each question. */
export function saveAnswers(itemId, answers) {
  save(nameOf("answers", itemId), answers && JSON.stringify(answers));
}

export function loadAnswers(itemId) {
  return load(nameOf("answers", itemId));
}

/**
 * `ending` is {after, text, again, isError}: the ids of items that may be the last one, the text below it, whether trying
 * again is offered, and whether it is a failure.
 */
export function saveEnding(user, threadId, ending) {
  save(nameOf("ended", user, threadId), ending && JSON.stringify(ending));
}

export function loadEnding(user, threadId) {
  return load(nameOf("ended", user, threadId));
}

export function saveRating(user, itemId, kind) {
  save(nameOf("rated", user, itemId), kind);
}

export function loadRating(user, itemId) {
  return stored().getItem(nameOf("rated", user, itemId));
}

const stored = () => storage ?? sessionStorage;

function load(name) {
  return JSON.parse(stored().getItem(name) ?? "null");
}

function save(name, value) {
  // Removed first, because no state is better than an old one.
  stored().removeItem(name);
  try {
    if (value) stored().setItem(name, value);
  } catch {
    // The storage is full: this state is lost on a reload.
  }
}
