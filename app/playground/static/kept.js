// What this page remembers of conversations because the protocol does not: how a turn ended badly, and what was rated.
// For as long as the tab lives, and for each user by themselves.

const nameOf = (...parts) => JSON.stringify(parts);

/**
 * `ending` is {after, text, again, length}: the last item that was there, what is said below it, whether trying again is
 * offered; and how long the item may be, if it was left before its end. Longer, it has got to it.
 */
export function keepEnding(user, threadId, ending) {
  keep(nameOf("ended", user, threadId), ending && JSON.stringify(ending));
}

export function keptEnding(user, threadId) {
  return JSON.parse(sessionStorage.getItem(nameOf("ended", user, threadId)) ?? "null");
}

export function keepRating(user, itemId, kind) {
  keep(nameOf("rated", user, itemId), kind);
}

export function keptRating(user, itemId) {
  return sessionStorage.getItem(nameOf("rated", user, itemId));
}

function keep(name, value) {
  try {
    if (value) sessionStorage.setItem(name, value);
    else sessionStorage.removeItem(name);
  } catch {
    // It is full: nothing rests on it.
  }
}
