// Where one is (in the address, so that every view is a link), keys, light and dark.
"use strict";

const KEYS = [
  ["/", "search"], ["j, k or ↓, ↑", "next and previous feature"], ["Enter", "open the chosen feature"],
  ["r", "a feature at random"], ["t", "the table"], ["o", "the overview"], ["Esc", "leave the search, close this"],
  ["?", "these keys"],
];

X.address = function (path, state) {
  const kept = Object.entries(state || {}).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return `#/${path}` + (kept.length ? "?" + new URLSearchParams(kept) : "");
};
X.go = (path, state) => { location.hash = X.address(path, state); };

X.where = function () {
  const address = location.hash.replace(/^#\/?/, ""), at = address.indexOf("?");
  const [path, query] = at < 0 ? [address, ""] : [address.slice(0, at), address.slice(at + 1)];
  return { path: path.split("/").filter(Boolean), state: Object.fromEntries(new URLSearchParams(query)) };
};
X.shown = (state) => X.dictionaries[Number(state.at) || 0] || X.dictionaries[0];

X.draw = function () {
  const { path, state } = X.where(), main = document.getElementById("main"), search = document.getElementById("search");
  const view = path[0] || "overview", dictionary = X.shown(state);
  if (document.activeElement !== search) search.value = state.q || "";
  X.moves = null;
  if (view === "table") X.table(main, dictionary, state);
  else if (view === "feature") X.featurePage(main, dictionary, Number(path[1]), state);
  else if (view === "live" && window.LIVE) X.live(main);
  else X.overview(main);
  const { q, sort, dir, at } = state;
  const tabs = [["overview", "Overview", "#/"], ["table", "Features", X.address("table", { q, sort, dir, at })]];
  if (window.LIVE) tabs.push(["live", "Live", "#/live"]);
  document.getElementById("tabs").replaceChildren(...tabs.map(([name, title, href]) =>
    X.el("a", { href, "aria-current": name === view ? "page" : null }, title)));
  document.title = (view === "feature" ? `feature ${path[1]} · ` : "") + X.title();
  const page = path.join("/");
  if (page !== X.page) window.scrollTo(0, 0);
  X.page = page;
};

X.title = () => X.dictionaries.map((each) => each.name).join(" and ");

X.random = function () {
  const { state } = X.where(), dictionary = X.shown(state);
  const firing = X.ordered(dictionary, "feature", false).filter((j) => dictionary.columns.status[j] !== 2);
  if (firing.length) X.go(`feature/${firing[Math.floor(Math.random() * firing.length)]}`, { at: state.at });
};

X.keys = function () {
  const dialog = document.getElementById("keys");
  dialog.replaceChildren(X.el("h2", {}, "Keys"),
    X.rows(null, KEYS.map(([key, what]) => [X.el("kbd", {}, key), what])),
    X.el("form", { method: "dialog" }, X.el("button", { autofocus: true }, "close")));
  if (!dialog.open) dialog.showModal();
};

X.ACTS = {
  "/": () => document.getElementById("search").focus(),
  "?": () => X.keys(),
  r: () => X.random(),
  t: () => X.go("table", X.where().state),
  o: () => X.go("", {}),
  j: () => X.moves?.next(),
  k: () => X.moves?.previous(),
  ArrowDown: () => X.moves?.next(),
  ArrowUp: () => X.moves?.previous(),
  Enter: () => X.moves?.open(),
};

X.onKey = function (event) {
  const { key, target } = event, search = document.getElementById("search");
  if (event.ctrlKey || event.metaKey || event.altKey || !X.ACTS[key]) {
    if (key === "Escape" && target === search) search.blur();
    return;
  }
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName), table = X.where().path[0] === "table";
  if (document.getElementById("keys").open) return;
  if (typing && !(target === search && table && /^(Arrow|Enter)/.test(key))) return;
  if (key.startsWith("Arrow") && !table) return; // there they scroll
  if (key === "Enter" && /^(A|BUTTON)$/.test(target.tagName)) return;
  X.ACTS[key]();
  event.preventDefault();
};

// A query is drawn where it is typed; from another view it leads to the table.
X.onSearch = function () {
  const { path, state } = X.where(), query = document.getElementById("search").value;
  const address = X.address("table", { ...state, q: query, tab: undefined });
  if (path[0] !== "table") {
    location.hash = address;
    return;
  }
  history.replaceState(null, "", address);
  X.draw();
};

X.turnTheme = function () {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)").matches;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : system;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch { /* a page on a disk may not be allowed to keep it */ }
};

X.start = function () {
  document.getElementById("brand").textContent = X.title();
  const search = document.getElementById("search");
  search.addEventListener("input", X.onSearch);
  document.getElementById("random").addEventListener("click", X.random);
  document.getElementById("help").addEventListener("click", X.keys);
  document.getElementById("theme").addEventListener("click", X.turnTheme);
  window.addEventListener("hashchange", X.draw);
  document.addEventListener("keydown", X.onKey);
  if (search.value) X.onSearch(); // typed before the features were there
  X.draw();
  if (window.LIVE) X.stay();
};

try {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch { /* as above */ }
