// The table of all features: searched and sorted as typed arrays, drawn only where it is seen.
"use strict";

X.COLUMNS = [
  { name: "feature", title: "feature", width: "84px", about: "number of the feature" },
  { name: "density", title: "fires on", width: "96px", shown: X.percent, about: "share of tokens on which it fires" },
  { name: "fired", title: "tokens", width: "92px", about: "tokens on which it fires" },
  { name: "largest", title: "largest", width: "86px", about: "its largest activation" },
  { name: "mean", title: "mean", width: "86px", about: "its mean activation where it fires" },
  { name: "rank_mean", title: "rank", width: "72px", digits: 1,
    about: "mean rank of its pick among those of a token; 0 is the first" },
  { name: "token_r2", title: "token R²", width: "96px", digits: 2,
    about: "share of its variance that the token explains" },
  { name: "purity", title: "purity", width: "86px", digits: 2,
    about: "share of the commonest token among its strongest contexts" },
  { name: "column_entries", title: "values", width: "78px", about: "values of its column" },
];

const ROW = 30, BEYOND = 6; // the height of a row, and rows that are drawn above and below what is seen
const STATUS = ["alive", "rare", "dead"];
const COMPARED = /^(\w+)(<=|>=|<|>|=)(-?[\d.]+(?:e-?\d+)?)$/;
const HOLDS = {
  "<": (value, limit) => value < limit, ">": (value, limit) => value > limit, "=": (value, limit) => value === limit,
  "<=": (value, limit) => value <= limit, ">=": (value, limit) => value >= limit,
};

// What a query asks for: words that all occur, conditions that all hold, states of which one is right.
X.asked = function (dictionary, query) {
  const asked = { words: [], conditions: [], states: [], unknown: [] };
  for (const part of query.toLowerCase().match(/"[^"]*"?|\S+/g) || []) {
    const [, name, sign, limit] = COMPARED.exec(part) || [];
    const column = name && X.COLUMNS.find((each) => each.name === name || each.title === name);
    if (column && dictionary.columns[column.name]) {
      asked.conditions.push({ values: dictionary.columns[column.name], holds: HOLDS[sign], limit: Number(limit) });
    } else if (column && column.name !== "feature") asked.unknown.push(column.title);
    else if (STATUS.includes(part)) asked.states.push(STATUS.indexOf(part));
    else asked.words.push(part.replace(/^"|"$/g, ""));
  }
  return asked;
};

// All features by a column; what has no value comes last either way.
X.ordered = function (dictionary, name, descending) {
  const key = `${name} ${descending}`;
  if (!dictionary.orders.has(key)) {
    const values = name === "feature" ? Float64Array.from({ length: dictionary.n }, (_, j) => j) : dictionary.columns[name];
    const keys = Float64Array.from(values, (value) => (Number.isNaN(value) ? Infinity : descending ? -value : value));
    const order = Int32Array.from(keys, (_, j) => j);
    dictionary.orders.set(key, order.sort((a, b) => keys[a] - keys[b] || a - b));
  }
  return dictionary.orders.get(key);
};

// Of these features those that a query means; a query that is a number means that feature first.
X.found = function (dictionary, query, order) {
  const { words, conditions, states, unknown } = X.asked(dictionary, query);
  const { folded, columns, n } = dictionary, found = new Int32Array(n);
  const number = words.length === 1 && /^\d+$/.test(query.trim()) && Number(query) < n ? Number(query) : -1;
  let count = 0;
  if (unknown.length) return { list: found.subarray(0, 0), unknown };
  if (number >= 0) found[count++] = number;
  for (const j of order) {
    if (j === number) continue;
    if (states.length && !states.includes(columns.status[j])) continue;
    if (!conditions.every(({ values, holds, limit }) => holds(values[j], limit))) continue;
    if (words.every((word) => folded[j].includes(word))) found[count++] = j;
  }
  return { list: found.subarray(0, count), unknown };
};

// What a feature fires on and what it writes, on one line.
X.label = function (dictionary, feature) {
  if (dictionary.columns.status[feature] === 2) return "dead: it fires on no token";
  return dictionary.labels[feature].split("\u0001").map((some) => X.short(some).replace(/ +/g, " ").trim()).join("  ·  ");
};

// Only the rows that are seen exist; the space below them has the height of all.
X.Grid = class {
  constructor(dictionary, list, columns, state, head) {
    Object.assign(this, { dictionary, list, columns, state, chosen: -1, drawn: new Map() });
    this.template = columns.map((column) => column.width).join(" ") + " minmax(260px, 1fr)";
    head.style.setProperty("grid-template-columns", this.template);
    this.space = X.el("div", { class: "grid-space", style: { height: `${list.length * ROW}px` } });
    const about = { class: "grid", role: "grid", "aria-rowcount": list.length, tabindex: 0, "aria-label": "Features" };
    this.node = X.el("div", about, head, this.space);
    this.node.addEventListener("scroll", () => this.draw(), { passive: true });
  }

  draw() {
    const { scrollTop, clientHeight } = this.node;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - BEYOND);
    const last = Math.min(this.list.length, Math.ceil((scrollTop + clientHeight) / ROW) + BEYOND);
    for (const [place, node] of this.drawn) {
      if (place >= first && place < last) continue;
      node.remove();
      this.drawn.delete(place);
    }
    for (let place = first; place < last; place++) {
      if (!this.drawn.has(place)) this.drawn.set(place, this.space.appendChild(this.row(place)));
    }
  }

  row(place) {
    const { dictionary } = this, feature = this.list[place], address = X.address(`feature/${feature}`, this.state);
    const style = { "grid-template-columns": this.template, top: `${place * ROW}px` };
    const cells = this.columns.map((column) => {
      if (column.name === "feature") return X.el("a", { href: address }, String(feature));
      const value = dictionary.columns[column.name][feature];
      return column.shown ? column.shown(value) : X.number(value, column.digits);
    });
    const node = X.el("div", { class: "grid-row", role: "row", "aria-rowindex": place + 1, style },
      cells.map((cell) => X.el("div", { class: "number", role: "gridcell" }, cell)),
      X.el("div", { class: "text label", role: "gridcell" }, X.label(dictionary, feature)));
    node.addEventListener("click", () => { location.hash = address; });
    node.classList.toggle("chosen", place === this.chosen);
    return node;
  }

  choose(place) {
    if (!this.list.length) return;
    this.drawn.get(this.chosen)?.classList.remove("chosen");
    this.chosen = Math.max(0, Math.min(this.list.length - 1, place));
    const { node } = this, top = this.chosen * ROW, head = 36;
    if (top < node.scrollTop) node.scrollTop = top;
    if (top + ROW > node.scrollTop + node.clientHeight - head) node.scrollTop = top + ROW - node.clientHeight + head;
    this.draw();
    this.drawn.get(this.chosen)?.classList.add("chosen");
  }

  open() {
    document.getElementById("search").blur();
    if (this.chosen >= 0) X.go(`feature/${this.list[this.chosen]}`, this.state);
  }
};

// The head of the table: a click sorts by a column, another turns the order round.
X.head = function (columns, sort, descending, state) {
  const heads = columns.map((column) => {
    const sorted = column.name === sort, arrow = sorted ? (descending ? " ↓" : " ↑") : "";
    const turn = () => X.go("table", { ...state, sort: column.name, dir: sorted && descending ? "1" : "-1" });
    const order = sorted ? (descending ? "descending" : "ascending") : "none";
    return X.el("div", { role: "columnheader", class: "number", "aria-sort": order },
      X.el("button", { title: column.about, onclick: turn }, column.title + arrow));
  });
  const about = "tokens of its strongest contexts, then tokens that it makes likelier";
  const label = X.el("div", { role: "columnheader", class: "label", title: about }, "fires on · writes");
  return X.el("div", { class: "grid-head", role: "row" }, heads, label);
};

X.table = function (main, dictionary, state) {
  const columns = X.COLUMNS.filter((column) => column.name === "feature" || dictionary.columns[column.name]);
  const sort = columns.some((column) => column.name === state.sort) ? state.sort : "density", descending = state.dir !== "1";
  const { list, unknown } = X.found(dictionary, state.q || "", X.ordered(dictionary, sort, descending));
  const grid = new X.Grid(dictionary, list, columns, state, X.head(columns, sort, descending, state));
  X.moves = { next: () => grid.choose(grid.chosen + 1), previous: () => grid.choose(grid.chosen - 1), open: () => grid.open() };
  X.list = { dictionary, features: list };
  const count = `${X.number(list.length)} of ${X.number(dictionary.n)} features` + (state.q ? ` for “${state.q}”. ` : ". ");
  const hint = unknown.length ? `This dictionary's database has no ${unknown.join(" and no ")}.`
    : "Words look in the tokens that a feature fires on and writes; also fired>100, density<0.001, alive, rare, dead.";
  const said = X.el("p", { class: "quiet small", id: "count", "aria-live": "polite" }, count + hint);
  main.replaceChildren(X.sides("table", dictionary, state), said, grid.node);
  if (!list.length) grid.node.append(X.el("p", { class: "nothing quiet" }, "No feature is like this."));
  grid.draw();
};

// Where two dictionaries are shown, whose features these are.
X.sides = (path, dictionary, state) =>
  X.el("div", { class: "tabs", hidden: X.dictionaries.length < 2 }, X.dictionaries.map((each) =>
    X.el("a", { class: "tab", href: X.address(path, { ...state, at: String(each.number) }),
      "aria-current": each === dictionary ? "page" : null }, each.name)));
