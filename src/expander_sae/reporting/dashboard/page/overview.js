// Where a dictionary stands: what it is, how well it explains and reads, how often its features fire.
"use strict";

X.densities = function (dictionary) {
  const { density } = dictionary.columns, alive = density.filter((value) => value > 0);
  if (!alive.length) return X.el("p", { class: "quiet" }, "No feature fires on this text.");
  const logs = Array.from(alive, Math.log10);
  const low = Math.floor(logs.reduce((a, b) => Math.min(a, b))), high = Math.max(low + 1, Math.ceil(logs.reduce((a, b) => Math.max(a, b))));
  const counts = new Array(40).fill(0);
  for (const value of logs) counts[Math.min(39, Math.floor(40 * (value - low) / (high - low)))]++;
  return X.histogram(counts, low, high, "share of tokens (log scale)", { label: (power) => X.percent(10 ** power) });
};

X.spread = function (dictionary, name, title) {
  const values = dictionary.columns[name] && Array.from(dictionary.columns[name]).filter((value) => !Number.isNaN(value));
  if (!values || !values.length) return null;
  const low = Math.min(0, values.reduce((a, b) => Math.min(a, b))), counts = new Array(25).fill(0);
  for (const value of values) counts[Math.max(0, Math.min(24, Math.floor(25 * (value - low) / (1 - low))))]++;
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return X.el("div", { class: "panel" }, X.el("h2", {}, title), X.histogram(counts, low, 1, `mean ${mean.toFixed(3)} over ${X.number(values.length)} features`, { label: (v) => v.toFixed(1) }));
};

X.measured = (dictionary) => !dictionary.measures.length ? null :
  X.el("div", { class: "panel" }, X.el("h2", {}, "Measured"),
    X.el("table", { class: "plain" }, X.el("tbody", {}, dictionary.measures.map((each) => X.el("tr", { title: each.about },
      X.el("th", {}, each.name), X.el("td", { class: "number" }, X.number(each.value)),
      X.el("td", { class: "quiet small" }, X.known(each.low) ? `${X.number(each.low)} to ${X.number(each.high)}` : ""))))));

X.about = function (dictionary) {
  return [
    X.el("h1", {}, dictionary.name),
    X.el("div", { class: "panels" },
      X.el("div", { class: "panel" }, X.el("h2", {}, "The dictionary"), X.facts(dictionary.facts)),
      X.measured(dictionary),
      X.el("div", { class: "panel" }, X.el("h2", {}, "How often features fire"), X.densities(dictionary),
        X.el("p", { class: "small" }, ...STATUS.flatMap((status) => [X.el("a", { href: X.address("table", { q: status, at: String(dictionary.number) }) }, `${X.number(dictionary.counts[status])} ${status}`), "  "]))),
      X.spread(dictionary, "purity", "Purity"), X.spread(dictionary, "token_r2", "Token R²"), X.spread(dictionary, "coherence", "Coherence")),
  ];
};

X.overview = function (main) {
  const sides = X.dictionaries.map((dictionary) => X.el("div", {}, X.about(dictionary)));
  main.replaceChildren(X.dictionaries.length > 1 ? X.el("div", { class: "side" }, sides) : sides[0],
    X.el("p", { class: "quiet small" }, "Scores of a feature say how much it tells a reader; none of them was chosen to look good. Press r for a feature at random."));
};
