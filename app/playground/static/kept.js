// What this page remembers of conversations because the protocol does not: how a turn ended badly, and what was rated.
// For as long as the tab lives, and for each user by themselves.

const nameOf = (...parts) => JSON.stringify(parts);

/** `ending` is {after, text, again}: the last item that was there, what is said below it, whether trying again is offered. */
export function keepEnding(user, threadId, ending) {
  const name = nameOf("ended", user, threadId);
  if (ending) sessionStorage.setItem(name, JSON.stringify(ending));
  else sessionStorage.removeItem(name);
}

export function keptEnding(user, threadId) {
  return JSON.parse(sessionStorage.getItem(nameOf("ended", user, threadId)) ?? "null");
}

export function keepRating(user, itemId, kind) {
  sessionStorage.setItem(nameOf("rated", user, itemId), kind);
}

export function keptRating(user, itemId) {
  return sessionStorage.getItem(nameOf("rated", user, itemId));
}
