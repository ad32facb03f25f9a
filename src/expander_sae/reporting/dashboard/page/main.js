// Where one is (in the address, so that every view is a link), keys, light and dark.
"use strict";

const KEYS = [["/", "search"], ["j, k or ↓, ↑", "next and previous feature"], ["Enter", "open the chosen feature"], ["r", "a feature at random"], ["t", "the table"], ["o", "the overview"], ["Esc", "leave the search, close this"], ["?", "these keys"]];

X.address = (path, state) => {
  const kept = Object.entries(state || {}).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return `#/${path}` + (kept.length ? "?" + new URLSearchParams(kept) : "");
};
X.go = (path, state) => { location.hash = X.address(path, state); };

X.where = function () {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean), state: Object.fromEntries(new URLSearchParams(query || "")) };
};

X.draw = function () {
  const { path, state } = X.where(), main = document.getElementById("main"), search = document.getElementById("search");
  const view = path[0] || "overview", dictionary = X.dictionaries[Number(state.at) || 0] || X.dictionaries[0];
  if (document.activeElement !== search) search.value = state.q || "";
  X.moves = null;
  if (view === "table") X.table(main, dictionary, state);
  else if (view === "feature") X.featurePage(main, Number(path[1]), state);
  else if (view === "live" && window.LIVE) X.live(main, state);
  else X.overview(main);
  const tabs = [["overview", "Overview", "#/"], ["table", "Features", X.address("table", { q: state.q, sort: state.sort, dir: state.dir, at: state.at })]];
  if (window.LIVE) tabs.push(["live", "Live", "#/live"]);
  document.getElementById("tabs").replaceChildren(...tabs.map(([name, title, href]) => X.el("a", { href, "aria-current": name === view ? "page" : null }, title)));
  document.title = (view === "feature" ? `feature ${path[1]} · ` : "") + X.dictionaries.map((each) => each.name).join(" and ");
  if (view !== X.shown) { window.scrollTo(0, 0); X.shown = view; }
};

X.random = function () {
  const { state } = X.where(), dictionary = X.dictionaries[Number(state.at) || 0] || X.dictionaries[0];
  const firing = Array.from({ length: dictionary.n }, (_, j) => j).filter((j) => dictionary.columns.status[j] !== 2);
  if (firing.length) X.go(`feature/${firing[Math.floor(Math.random() * firing.length)]}`, { at: state.at });
};

X.keys = function () {
  const dialog = document.getElementById("keys");
  dialog.replaceChildren(X.el("h2", {}, "Keys"), X.el("table", { class: "plain" }, X.el("tbody", {}, KEYS.map(([key, what]) => X.el("tr", {}, X.el("td", {}, X.el("kbd", {}, key)), X.el("td", {}, what))))),
    X.el("form", { method: "dialog" }, X.el("button", { autofocus: true }, "close")));
  if (!dialog.open) dialog.showModal();
};

X.onKey = function (event) {
  const search = document.getElementById("search"), typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === search) { search.blur(); return; }
  if (typing || document.getElementById("keys").open) return;
  const acts = {
    "/": () => search.focus(), "?": X.keys, r: X.random, t: () => X.go("table", X.where().state), o: () => X.go("", {}),
    j: () => X.moves?.next(), k: () => X.moves?.previous(), ArrowDown: () => X.moves?.next(), ArrowUp: () => X.moves?.previous(), Enter: () => X.moves?.open(),
  };
  if (/^Arrow/.test(event.key) && X.where().path[0] !== "table") return; // there they scroll
  if (event.key === "Enter" && /^(A|BUTTON)$/.test(event.target.tagName)) return;
  if (acts[event.key]) { acts[event.key](); event.preventDefault(); }
};

X.start = function () {
  document.getElementById("brand").textContent = X.dictionaries.map((each) => each.name).join(" and ");
  const search = document.getElementById("search");
  search.addEventListener("input", () => {
    const { path, state } = X.where(), address = X.address("table", { ...state, q: search.value, tab: undefined });
    if (path[0] === "table") { history.replaceState(null, "", address); X.draw(); } else location.hash = address;
  });
  document.getElementById("random").addEventListener("click", X.random);
  document.getElementById("help").addEventListener("click", X.keys);
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a page on a disk may not be allowed to keep it */ }
  });
  window.addEventListener("hashchange", X.draw);
  document.addEventListener("keydown", X.onKey);
  X.draw();
};

try { const kept = localStorage.getItem("theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* as above */ }
