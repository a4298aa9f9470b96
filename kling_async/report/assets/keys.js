// The keyboard, and the theme.

const THEMES = ["", "light", "dark"];
const THEME_NAMES = { "": "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
const STORED = "kling-async-theme";

function remembered() {
  try {
    return localStorage.getItem(STORED) ?? "";
  } catch {
    return ""; // a browser that keeps nothing for pages of files
  }
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  const button = byId("theme");
  button.textContent = THEME_NAMES[theme];
  button.setAttribute("aria-label", `Theme: ${theme || "as the system"}`);
  try {
    localStorage.setItem(STORED, theme);
  } catch {
    // The choice then lasts as long as the page.
  }
}

function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
}

const PAGE_KEYS = {
  j: () => goTo(current + 1),
  k: () => goTo(current - 1),
  "/": () => byId("query").focus(),
  f: () => choose("status", chosen.status === "failed" ? "" : "failed"),
  t: nextTheme,
  "?": () => byId("help").showModal(),
};
// Only where they do not mean something else: in the list, or when nothing has the focus.
const LIST_KEYS = {
  ArrowDown: () => goTo(current + 1),
  ArrowUp: () => goTo(current - 1),
  Home: () => goTo(0),
  End: () => goTo(shown.length - 1),
};
const VIEWER_KEYS = {
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  ArrowDown: () => stepRow(1),
  ArrowUp: () => stepRow(-1),
  j: () => stepRow(1),
  k: () => stepRow(-1),
  z: zoom,
  t: nextTheme,
};

const isTyping = (element) => element.matches("input[type=search], select, textarea");

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const { target, key } = event;
  if (viewer.open) {
    // The panel scrolls with the arrows that go up and down.
    if (key.startsWith("Arrow") && target.closest(".panel") && !key.match(/Left|Right/)) return;
    act(VIEWER_KEYS[key], event);
  } else if (isTyping(target)) {
    if (key === "Escape" && target.id === "query") act(leaveSearch, event);
    else if (key === "Enter" && target.id === "query") act(() => goTo(0), event);
  } else if (key === "Enter" && target.classList.contains("row")) {
    act(() => openRow(Number(target.dataset.place), 0), event);
  } else if (key === "Escape" && chosen.q) {
    act(leaveSearch, event);
  } else {
    const inList = target === document.body || list.contains(target);
    act(PAGE_KEYS[key] ?? (inList ? LIST_KEYS[key] : undefined), event);
  }
}

function act(action, event) {
  if (action === undefined) return;
  event.preventDefault();
  action();
}

function leaveSearch() {
  choose("q", "");
  byId("query").blur();
}

function startKeys() {
  setTheme(remembered());
  byId("theme").addEventListener("click", nextTheme);
  byId("show-help").addEventListener("click", () => byId("help").showModal());
  byId("close-help").addEventListener("click", () => byId("help").close());
  document.addEventListener("keydown", onKey);
}
