// The table of all features: searched and sorted as typed arrays, drawn only where it is seen.
"use strict";

X.COLUMNS = [
  { name: "feature", title: "feature", width: "84px", about: "number of the feature" },
  { name: "density", title: "density", width: "96px", shown: X.percent, about: "share of tokens on which it fires" },
  { name: "fired", title: "tokens", width: "92px", about: "tokens on which it fires" },
  { name: "largest", title: "largest", width: "86px", about: "its largest activation" },
  { name: "mean", title: "mean", width: "86px", about: "its mean activation where it fires" },
  { name: "rank_mean", title: "rank", width: "72px", digits: 1,
    about: "mean rank of its pick among those of a token; 0 is the first" },
  { name: "token_r2", title: "token R²", width: "96px", digits: 2,
    about: "share of its variance that the token explains" },
  { name: "purity", title: "purity", width: "86px", digits: 2,
    about: "share of the commonest token among its strongest contexts" },
  { name: "column_entries", title: "values", width: "78px", about: "values of its column, or atoms of its mixture" },
  { name: "parent", title: "parent", width: "82px", shown: (value) => (value < 0 ? "–" : String(value)),
    about: "atom that adds most to its mixture" },
];

const ROW = 30, BEYOND = 6; // the height of a row, and rows that are drawn above and below what is seen
const DRAWN = 500_000; // rows at most: a browser draws nothing that is much higher than they are
const KEPT = 8; // words whose features are remembered
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

// All features by a column; what has no value comes last either way. A key of 64 bits holds the value, so that whole
// numbers compare as the values do, and below it the feature: the browser sorts such keys without calling us back.
X.ordered = function (dictionary, name, descending) {
  const key = `${name} ${descending}`;
  if (dictionary.orders.has(key)) return dictionary.orders.get(key);
  const { n } = dictionary, values = dictionary.columns[name], keys = new Uint32Array(2 * n), order = new Int32Array(n);
  const bits = values instanceof Float32Array ? new Int32Array(values.map((value) => value + 0).buffer) : values;
  for (let j = 0; j < n; j++) {
    let high = name === "feature" ? j : bits[j] ^ 0x80000000;
    if (bits !== values && bits[j] < 0) high = ~bits[j]; // of negative numbers the larger bits are the smaller number
    if (descending) high = ~high;
    keys[2 * j] = j;
    keys[2 * j + 1] = Number.isNaN(values?.[j]) ? 0xffffffff : high;
  }
  new BigUint64Array(keys.buffer).sort();
  for (let place = 0; place < n; place++) order[place] = keys[2 * place];
  dictionary.orders.set(key, order);
  return order;
};

// For every feature, whether this word stands in its label. The last few words are kept: a query grows by its last.
X.holding = function (dictionary, word) {
  const { held, folded, begins, n } = dictionary;
  if (held.has(word)) return held.get(word);
  const found = new Uint8Array(n);
  let j = 0, at = folded.indexOf(word);
  while (at >= 0 && j < n) {
    while (begins[j + 1] <= at) j++;
    found[j] = 1;
    at = folded.indexOf(word, begins[j + 1]);
  }
  if (held.size >= KEPT) held.delete(held.keys().next().value);
  held.set(word, found);
  return found;
};

// Of these features those that a query means; a query that is a number means that feature first.
X.found = function (dictionary, query, order) {
  const { words, conditions, states, unknown } = X.asked(dictionary, query), { columns, n } = dictionary;
  if (unknown.length) return { list: order.subarray(0, 0), unknown };
  if (!words.length && !conditions.length && !states.length) return { list: order, unknown };
  const kept = new Uint8Array(n).fill(1), list = new Int32Array(n);
  for (const word of words) {
    const found = X.holding(dictionary, word);
    for (let j = 0; j < n; j++) kept[j] &= found[j];
  }
  for (const { values, holds, limit } of conditions) {
    for (let j = 0; j < n; j++) if (kept[j] && !holds(values[j], limit)) kept[j] = 0;
  }
  if (states.length) for (let j = 0; j < n; j++) if (!states.includes(columns.status[j])) kept[j] = 0;
  const number = words.length === 1 && /^\d+$/.test(query.trim()) && Number(query) < n ? Number(query) : -1;
  let count = 0;
  if (number >= 0) list[count++] = number;
  for (let place = 0; place < n; place++) {
    const j = order[place];
    if (kept[j] && j !== number) list[count++] = j;
  }
  return { list: list.subarray(0, count), unknown };
};

// What a feature fires on and what it writes, on one line.
X.label = function (dictionary, feature) {
  if (dictionary.columns.status[feature] === 2) return "dead: it fires on no token";
  return dictionary.labels[feature].split("\u0001").map((some) => X.short(some).replace(/ +/g, " ").trim()).join("  ·  ");
};

// The label comes last, but on a phone, where one would have to scroll to it, behind the number of the feature.
X.narrow = () => matchMedia("(max-width: 600px)").matches;
X.withLabel = ([first, ...rest], label) => (X.narrow() ? [first, label, ...rest] : [first, ...rest, label]);

// Only the rows that are seen exist; the space below them has the height of all.
X.Grid = class {
  constructor(dictionary, list, columns, state, head) {
    Object.assign(this, { dictionary, list, columns, state, chosen: -1, drawn: new Map() });
    this.template = X.withLabel(columns.map((column) => column.width), X.narrow() ? "180px" : "minmax(260px, 1fr)").join(" ");
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
      X.withLabel(cells.map((cell) => X.el("div", { class: "number", role: "gridcell" }, cell)),
        X.el("div", { class: "text label", role: "gridcell" }, X.label(dictionary, feature))));
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
  const title = X.narrow() ? "fires on" : "fires on  ·  makes likelier";
  const label = X.el("div", { role: "columnheader", class: "label", title: about }, title);
  return X.el("div", { class: "grid-head", role: "row" }, X.withLabel(heads, label));
};

X.table = function (main, dictionary, state) {
  const columns = X.COLUMNS.filter((column) => column.name === "feature" || dictionary.columns[column.name]);
  const sort = columns.some((column) => column.name === state.sort) ? state.sort : "density", descending = state.dir !== "1";
  const { list, unknown } = X.found(dictionary, state.q || "", X.ordered(dictionary, sort, descending));
  const grid = new X.Grid(dictionary, list.subarray(0, DRAWN), columns, state, X.head(columns, sort, descending, state));
  X.moves = { next: () => grid.choose(grid.chosen + 1), previous: () => grid.choose(grid.chosen - 1), open: () => grid.open() };
  X.list = { dictionary, features: list };
  const count = `${X.number(list.length)} of ${X.number(dictionary.n)} features` + (state.q ? ` for “${state.q}”. ` : ". ") +
    (list.length > DRAWN ? `The first ${X.number(DRAWN)} are listed. ` : "");
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
