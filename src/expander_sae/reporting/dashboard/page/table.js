// The table of all features: searched and sorted as typed arrays, drawn only where it is seen.
"use strict";

X.COLUMNS = [
  { name: "feature", title: "feature", width: "84px", about: "number of the feature" },
  { name: "density", title: "fires on", width: "96px", shown: X.percent, about: "share of tokens on which it fires" },
  { name: "fired", title: "tokens", width: "92px", about: "tokens on which it fires" },
  { name: "largest", title: "largest", width: "86px", about: "its largest activation" },
  { name: "mean", title: "mean", width: "86px", about: "its mean activation where it fires" },
  { name: "rank_mean", title: "rank", width: "72px", digits: 1, about: "mean rank of its pick among those of a token; 0 is the first" },
  { name: "token_r2", title: "token R²", width: "86px", digits: 2, about: "share of its variance that the token explains" },
  { name: "purity", title: "purity", width: "78px", digits: 2, about: "share of the commonest token among its strongest contexts" },
  { name: "coherence", title: "coherence", width: "98px", digits: 2, about: "how alike its strongest contexts are to the model" },
  { name: "column_entries", title: "values", width: "74px", about: "values of its column" },
];

const ROW = 30;
const COMPARED = /^([a-z_0-9² ]+?)\s*(<=|>=|<|>|=)\s*(-?[\d.]+(?:e-?\d+)?)$/i;
const STATUS = ["alive", "rare", "dead"];

// Numbers of the features that a query means: words all occur, conditions all hold, a number is that feature first.
X.found = function (dictionary, query) {
  const { columns, folded, n } = dictionary, conditions = [], words = [], states = [];
  for (const part of query.toLowerCase().match(/"[^"]*"|\S+/g) || []) {
    const compared = COMPARED.exec(part);
    const column = compared && X.COLUMNS.find((each) => each.name === compared[1] || each.title === compared[1]);
    if (column && columns[column.name]) conditions.push([columns[column.name], compared[2], Number(compared[3])]);
    else if (STATUS.includes(part)) states.push(STATUS.indexOf(part));
    else words.push(part.replace(/^"|"$/g, ""));
  }
  const holds = (value, sign, limit) => sign === "<" ? value < limit : sign === ">" ? value > limit : sign === "<=" ? value <= limit : sign === ">=" ? value >= limit : value === limit;
  const numbers = words.filter((word) => /^\d+$/.test(word) && Number(word) < n).map(Number);
  const found = new Int32Array(n);
  let count = 0;
  if (words.length === 1 && numbers.length === 1) found[count++] = numbers[0];
  for (let j = 0; j < n; j++) {
    if (count && found[0] === j && numbers.length === 1 && words.length === 1) continue;
    if (states.length && !states.includes(columns.status[j])) continue;
    if (!words.every((word) => folded[j].includes(word))) continue;
    if (!conditions.every(([values, sign, limit]) => holds(values[j], sign, limit))) continue;
    found[count++] = j;
  }
  return found.subarray(0, count);
};

// The same in the order of a column; what has no value comes last either way.
X.sorted = function (dictionary, found, name, descending) {
  if (name === "feature") return descending ? found.slice().reverse() : found.slice().sort();
  const values = dictionary.columns[name], keys = Float64Array.from(found, (j) => {
    const value = values[j];
    return Number.isNaN(value) ? Infinity : descending ? -value : value;
  });
  const order = Uint32Array.from(found, (_, i) => i).sort((a, b) => keys[a] - keys[b] || found[a] - found[b]);
  return Int32Array.from(order, (i) => found[i]);
};

X.table = function (main, dictionary, state) {
  const shownColumns = X.COLUMNS.filter((column) => column.name === "feature" || dictionary.columns[column.name]);
  const template = shownColumns.map((column) => column.width).join(" ") + " minmax(260px, 1fr)";
  const descending = state.dir !== "1", sort = shownColumns.some((column) => column.name === state.sort) ? state.sort : "density";
  const list = X.sorted(dictionary, X.found(dictionary, state.q || ""), sort, descending);
  const head = X.el("div", { class: "grid-head", role: "row", style: { "grid-template-columns": template } },
    shownColumns.map((column) => X.el("div", { role: "columnheader", class: "number", "aria-sort": column.name === sort ? (descending ? "descending" : "ascending") : "none" },
      X.el("button", { title: column.about, onclick: () => X.go("table", { ...state, sort: column.name, dir: column.name === sort && descending ? "1" : "-1" }) },
        column.title + (column.name === sort ? (descending ? " ↓" : " ↑") : "")))),
    X.el("div", { role: "columnheader" }, X.el("button", { title: "tokens of its strongest contexts, then tokens that it makes likelier", style: { "text-align": "left" } }, "fires on · writes")));
  const space = X.el("div", { style: { height: `${list.length * ROW}px`, position: "relative" } });
  const grid = X.el("div", { class: "grid", role: "grid", "aria-rowcount": list.length, tabindex: 0, "aria-label": "Features" }, head, space);
  let chosen = -1;
  const drawn = new Map();
  function row(place) {
    const j = list[place];
    const node = X.el("div", { class: "grid-row", role: "row", "aria-rowindex": place + 1, style: { "grid-template-columns": template, top: `${place * ROW}px` }, onclick: () => X.go(`feature/${j}`, { ...state }) });
    for (const column of shownColumns) {
      const value = column.name === "feature" ? j : dictionary.columns[column.name][j];
      node.append(X.el("div", { class: "number" }, column.name === "feature" ? X.el("a", { href: X.address(`feature/${j}`, state) }, String(j)) : (column.shown || ((v) => X.number(v, column.digits)))(value)));
    }
    const label = X.el("div", { class: "text", style: { "white-space": "pre" } });
    label.textContent = dictionary.columns.status[j] === 2 ? "dead: it fires on no token" : X.short(dictionary.labels[j]).replace("\u0001", "   ·   ");
    node.append(label);
    if (place === chosen) node.classList.add("chosen");
    return node;
  }
  function draw() {
    const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - 6), last = Math.min(list.length, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + 6);
    for (const [place, node] of drawn) if (place < first || place >= last) { node.remove(); drawn.delete(place); }
    const fresh = [];
    for (let place = first; place < last; place++) if (!drawn.has(place)) { const node = row(place); drawn.set(place, node); fresh.push(node); }
    space.append(...fresh);
  }
  function choose(place) {
    if (!list.length) return;
    drawn.get(chosen)?.classList.remove("chosen");
    chosen = Math.max(0, Math.min(list.length - 1, place));
    const top = chosen * ROW;
    if (top < grid.scrollTop) grid.scrollTop = top;
    if (top + ROW > grid.scrollTop + grid.clientHeight - 36) grid.scrollTop = top + ROW - grid.clientHeight + 36;
    draw();
    drawn.get(chosen)?.classList.add("chosen");
  }
  grid.addEventListener("scroll", draw, { passive: true });
  X.moves = { next: () => choose(chosen + 1), previous: () => choose(chosen - 1), open: () => chosen >= 0 && X.go(`feature/${list[chosen]}`, { ...state }) };
  main.replaceChildren(
    X.el("p", { class: "quiet small", "aria-live": "polite" }, `${X.number(list.length)} of ${X.number(dictionary.n)} features`, state.q ? ` for “${state.q}”` : "",
      ". Words look in the tokens it fires on and writes; conditions such as purity>0.5 or density<0.001; alive, rare, dead."),
    grid);
  draw();
  X.list = list;
};
