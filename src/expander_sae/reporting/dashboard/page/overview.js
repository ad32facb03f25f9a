// Where a dictionary stands: what it is, how well it explains and reads, how often its features fire.
"use strict";

// How many values lie in each of so many equal bins.
X.binned = function (values, low, high, bins) {
  const counts = new Array(bins).fill(0);
  for (const value of values) {
    counts[Math.max(0, Math.min(bins - 1, Math.floor((bins * (value - low)) / (high - low))))]++;
  }
  return counts;
};
X.least = (values) => values.reduce((a, b) => Math.min(a, b));
X.most = (values) => values.reduce((a, b) => Math.max(a, b));

X.densities = function (dictionary) {
  const logs = Array.from(dictionary.columns.density.filter((value) => value > 0), Math.log10);
  const states = STATUS.map((status) => X.el("li", {},
    X.el("a", { href: X.address("table", { q: status, at: String(dictionary.number) }) },
      `${X.number(dictionary.counts[status])} ${status}`)));
  const list = X.el("ul", { class: "inline small" }, states);
  if (!logs.length) return X.panel("How often features fire", X.el("p", {}, "No feature fires on this text."), list);
  const low = Math.floor(X.least(logs)), high = Math.max(low + 1, Math.ceil(X.most(logs)));
  return X.panel("How often features fire",
    X.histogram(X.binned(logs, low, high, 40), low, high, "share of tokens (log scale)", (power) => X.percent(10 ** power)),
    list);
};

// A score of all features that have it.
X.spread = function (dictionary, name, title) {
  const values = Array.from(dictionary.columns[name] || []).filter((value) => !Number.isNaN(value));
  if (!values.length) return null;
  const low = Math.min(0, X.least(values)), mean = values.reduce((a, b) => a + b, 0) / values.length;
  const said = `mean ${mean.toFixed(3)} over ${X.number(values.length)} features`;
  return X.panel(title, X.histogram(X.binned(values, low, 1, 25), low, 1, said, (value) => value.toFixed(1)));
};

X.measured = function (dictionary) {
  if (!dictionary.measures.length) return null;
  return X.panel("Measured", X.rows(null, dictionary.measures.map((each) => [
    X.el("td", { title: each.about }, each.name),
    X.numeric(X.number(each.value)),
    X.el("td", { class: "quiet small" }, X.known(each.low) ? `${X.number(each.low)} to ${X.number(each.high)}` : ""),
  ])));
};

X.overview = function (main) {
  const sides = X.dictionaries.map((dictionary) => X.el("div", {},
    X.el("h1", {}, dictionary.name),
    X.el("div", { class: "panels" },
      X.panel("The dictionary", X.facts(dictionary.facts)),
      X.measured(dictionary)),
    X.el("div", { class: "panels" },
      X.densities(dictionary),
      X.spread(dictionary, "purity", "Purity"),
      X.spread(dictionary, "token_r2", "Token R²"))));
  main.replaceChildren(
    X.el("div", { class: sides.length > 1 ? "side" : "" }, sides),
    sides.length > 1 ? X.el("p", { class: "small", id: "matched" }, X.dictionaries[0].columns.fires_like
      ? "Each feature is shown beside the one of the other dictionary whose activations on the same tokens have the largest cosine with its own."
      : "Each feature is shown beside the one of the other dictionary whose column has the largest cosine with its own: the two were not looked at on the same tokens.") : "",
    X.el("p", { class: "quiet small" }, "Press r for a feature at random, and ? for all keys."));
};
