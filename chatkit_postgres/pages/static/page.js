// Connects the modules: the current user, and the buttons of the page.

import { assemble } from "./chat.js";
import { ChatClient } from "./client.js";
import { ask } from "./dialogs.js";
import { adorn, at, h, icon } from "./dom.js";
import { watchKeys } from "./keys.js";
import { openMenu, watchMenu } from "./menu.js";
import { Search } from "./search.js";
import { Sidebar } from "./sidebar.js";
import { propose, showEverything, watchMorePrompts } from "./welcome.js";

/** An answer changes the list a few times within that. */
const COLLECT_MS = 300;

let user = null;
const client = () => user;

// Back would lead to a deleted conversation.
const forget = () => history.replaceState(null, "", location.pathname);
const { log, composer, conversation, say, configure } = assemble({
  client,
  changed,
  entered: (threadId) => history.pushState(null, "", `#${threadId}`),
  left: forget,
});
const showNotice = (...about) => log.showNotice(...about);
const sidebar = new Sidebar({
  client,
  showNotice,
  current: () => conversation.threadId,
  left: () => {
    forget();
    open(null);
  },
  changed,
  renamed: (thread) => thread.id === conversation.threadId && conversation.showTitle(thread.title),
});
const search = new Search({ client, showNotice, chosen: (...place) => go(...place) });

function readList() {
  return sidebar.load().catch(() => {});
}

// Other pages of the user show the same list. An answer changes it several times; a hidden page reads it when it is shown.
const pages = new BroadcastChannel("conversations");
let reading = 0;
pages.addEventListener("message", ({ data }) => {
  if (data !== user?.user || document.hidden) return;
  clearTimeout(reading);
  reading = setTimeout(readList, COLLECT_MS);
});

/** This page has changed the list of conversations. */
function changed() {
  pages.postMessage(user.user);
  return readList();
}

/** The URL names the conversation, and a message of it, so that they can be bookmarked, and Back works. */
function go(threadId, itemId) {
  // The open list has a history entry of its own, so that Back closes it: that one is replaced.
  const enter = isDrawer() ? "replaceState" : "pushState";
  history[enter](null, "", threadId ? `#${threadId}${itemId ? `/${itemId}` : ""}` : location.pathname);
  return itemId && threadId === conversation.threadId ? openFromAddress() : open(threadId, itemId);
}

function placeOf() {
  const [threadId, itemId] = location.hash.slice(1).split("/");
  return [threadId || null, itemId];
}

/** Go where the URL leads. A link to the open conversation does not open it again. */
async function openFromAddress() {
  const [threadId, itemId] = placeOf();
  if (threadId !== conversation.threadId) return open(threadId, itemId);
  showSidebar(false);
  return itemId && conversation.showItem(itemId);
}

async function open(threadId, itemId) {
  showSidebar(false);
  showEverything(false);
  const opened = conversation.open(threadId, sidebar.titleOf(threadId), itemId);
  sidebar.mark();
  await opened;
}

async function useAs(name) {
  // Remembered for reloads of this page, and for the next page that is opened.
  for (const storage of [sessionStorage, localStorage]) storage.setItem("user", name);
  user = new ChatClient(name);
  composer.clear();
  sidebar.clear();
  search.clear();
  await sidebar.load().catch((error) => showNotice(error.message));
}

function showUser(name) {
  if (![...at("user").options].some((option) => option.value === name)) at("user").prepend(h("option", { value: name }, name));
  at("user").value = name;
}

let isChoosing = false;

async function chooseUser() {
  if (isChoosing) return;
  isChoosing = true;
  try {
    // A user who is chosen while another one's list is loading is handled next.
    do await switchUser();
    while (at("user").value !== user.user);
  } finally {
    isChoosing = false;
  }
}

async function switchUser() {
  const name = at("user").value || (await ask({ title: "Who are you?", field: "Name", yes: "Continue" }));
  if (!name) {
    at("user").value = user.user;
    return;
  }
  showUser(name);
  // First, so that no data of one user is shown under the name of another.
  await go(null);
  await useAs(name);
}

/** In a closed list, arrow keys only move; Enter or leaving chooses. In an open list, every selection is a choice. */
function chosen(list, choose) {
  let isOpen = false;
  let isByKey = false;
  list.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      if (!isOpen) choose(event);
      isByKey = false;
    } else if (event.key === " " || event.key === "F4" || event.altKey) {
      isOpen = !isOpen;
      isByKey = false;
    } else if (event.key === "Escape") isOpen = false;
    else isByKey = !isOpen;
  });
  list.addEventListener("pointerdown", () => (isByKey = false));
  list.addEventListener("change", () => {
    isOpen = false;
    if (!isByKey) choose();
  });
  list.addEventListener("blur", () => {
    isOpen = isByKey = false;
    choose();
  });
}

async function showConfig() {
  const { name } = await configure();
  document.querySelector(".name").textContent = name;
}

function showTheme() {
  const isDark = document.documentElement.dataset.theme === "dark";
  at("theme").replaceChildren(icon(isDark ? "sun" : "moon"));
  for (const name of ["aria-label", "title"]) at("theme").setAttribute(name, isDark ? "Light page" : "Dark page");
}

function toggleTheme() {
  localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  dispatchEvent(new Event("theme"));
}

const narrow = matchMedia("(max-width: 46rem)");
const isDrawer = () => document.body.classList.contains("sidebar-open");

/** On a wide page, the list is next to the conversation, or hidden; on a narrow one, it lies over it, until Back. */
function toggleSidebar(isShown) {
  if (!narrow.matches) {
    localStorage.setItem("list", isShown ? "shown" : "hidden");
    return showFolded();
  }
  if (isShown && !isDrawer()) history.pushState({ isDrawer: true }, "", location.href);
  else if (!isShown && history.state?.isDrawer) return history.back();
  return showSidebar(isShown);
}

function showFolded() {
  const isFolded = localStorage.getItem("list") === "hidden";
  const wasFolded = document.body.classList.contains("sidebar-folded");
  document.body.classList.toggle("sidebar-folded", isFolded);
  if (wasFolded === isFolded) return;
  at(isFolded ? "menu" : "fold-sidebar").focus();
}

function showSidebar(isShown) {
  const wasShown = isDrawer();
  document.body.classList.toggle("sidebar-open", isShown);
  at("menu").setAttribute("aria-expanded", String(isShown));
  document.querySelector("main").inert = isShown;
  if (isShown) at("new-thread").focus();
  else if (wasShown) at("menu").focus();
}

for (const [id, name] of [["menu", "menu"], ["fold-sidebar", "fold"], ["thread-menu", "more"], ["begin", "new"]]) adorn(id, name);
showTheme();
addEventListener("theme", showTheme);
at("theme").addEventListener("click", toggleTheme);
for (const id of ["new-thread", "begin"]) at(id).addEventListener("click", () => go(null));
chosen(at("user"), (event) => {
  if (at("user").value === user.user) return;
  // A browser would open the list.
  event?.preventDefault();
  chooseUser();
});
at("menu").addEventListener("click", () => toggleSidebar(true));
at("shade").addEventListener("click", () => toggleSidebar(false));
at("fold-sidebar").addEventListener("click", () => toggleSidebar(false));
at("sidebar").addEventListener("click", (event) => {
  const link = event.target.closest("#threads a");
  if (!link || !isDrawer() || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.dataset.thread);
});
addEventListener("popstate", () => (isDrawer() ? showSidebar(false) : openFromAddress()));
narrow.addEventListener("change", () => showSidebar(false));
at("thread-menu").addEventListener("click", () => {
  openMenu(at("thread-menu"), sidebar.entriesOf(conversation.thread, at("thread-menu")));
});
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && readList());
watchMenu();
watchKeys({ search: () => (toggleSidebar(true), at("filter").focus()), begin: () => go(null) });
watchMorePrompts();
showFolded();
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || event.target.id === "filter" || at("dialog").open) return;
  if (isDrawer()) toggleSidebar(false);
  else if (conversation.isRunning) conversation.stop();
  else if (composer.isQuoting) composer.quote(null);
});

const name = sessionStorage.getItem("user") ?? localStorage.getItem("user") ?? "alice";
showUser(name);
// Immediately, so that text typed while loading belongs to the conversation of the URL.
await Promise.all([useAs(name), open(...placeOf()), propose(say).catch(() => showNotice("There are no proposals: the server cannot be reached.")), showConfig().catch(() => {})]);
document.querySelector("main").removeAttribute("aria-busy");
