// A feature: what it fires on, what it writes, who fires with it, and the coordinates that it shares with others.
"use strict";

const GROUPS = [["strongest", "strongest"], ["q4", "top quarter"], ["q3", "third quarter"], ["q2", "second quarter"], ["q1", "weakest quarter"], ["random", "at random"]];

X.link = (dictionary, feature, state) => {
  const label = X.short(dictionary.labels[feature].split("\u0001")[0]).slice(0, 26);
  const link = X.el("a", { href: X.address(`feature/${feature}`, { ...state, at: String(dictionary.number) }) }, String(feature));
  const words = X.el("span", { class: "quiet text" });
  words.textContent = " " + label;
  return X.el("span", {}, link, words);
};

X.related = (dictionary, title, about, features, numbers, counts, state) => !features || !features.length ? null :
  X.el("div", { class: "panel" }, X.el("h2", { title: about }, title), X.el("table", { class: "plain" }, X.el("tbody", {},
    features.map((feature, i) => X.el("tr", {}, X.el("td", {}, X.link(dictionary, feature, state)),
      X.el("td", { class: "number", title: about }, X.number(numbers[i], 2)), counts ? X.el("td", { class: "number quiet" }, X.number(counts[i])) : null)))));

X.contexts = function (given, group) {
  const chosen = given.contexts.filter((context) => context.group === group);
  const top = given.largest || 1;
  if (!chosen.length) return X.el("p", { class: "quiet" }, "No context was kept here.");
  return X.el("div", {}, chosen.map((context) => X.el("div", { class: "context" },
    X.el("div", { class: "number", title: `document ${context.document}, position ${context.position}` }, X.number(context.activation)),
    X.el("div", { class: "text", dir: "auto" }, (context.tokens || context.token_ids.map((id) => ` ${id}`)).map((text, i) =>
      X.token(text, context.activations[i], top, { peak: i === context.peak }))))));
};

// The feature, the coordinates that its column touches, and for each the features that share most coordinates with it.
X.graph = function (dictionary, feature, given, state) {
  const touching = X.touching(dictionary), shared = new Map();
  for (const row of given.rows) for (const other of touching.get(row) || []) if (other !== feature) shared.set(other, (shared.get(other) || 0) + 1);
  const others = [...shared].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 12).map(([other]) => other);
  const height = Math.max(given.rows.length, others.length, 3) * 26 + 12, middle = height / 2;
  const high = (i, count) => (i + 0.5) * height / count, top = Math.max(...given.values.map(Math.abs), 1e-9);
  const edges = [], nodes = [];
  given.rows.forEach((row, i) => {
    const y = high(i, given.rows.length), value = given.values[i];
    edges.push(X.svg("path", { class: value < 0 ? "edge minus" : "edge", d: `M96 ${middle} C180 ${middle} 180 ${y} 250 ${y}`, "stroke-width": (0.6 + 3.4 * Math.abs(value) / top).toFixed(2), opacity: 0.8 }, X.svg("title", {}, `${X.number(value)} at coordinate ${row}`)));
    nodes.push(X.svg("text", { x: 256, y: y + 4 }, `${row}`), X.svg("text", { x: 300, y: y + 4, class: "quiet" }, `${X.number(value, 2)}`));
    others.forEach((other, k) => {
      const start = other * dictionary.listed, rows = dictionary.columns.rows.subarray(start, start + dictionary.listed);
      if (rows.includes(row)) edges.push(X.svg("path", { class: "edge", d: `M350 ${y} C410 ${y} 410 ${high(k, others.length)} 468 ${high(k, others.length)}`, "stroke-width": 1, opacity: 0.45 }));
    });
  });
  others.forEach((other, k) => {
    const link = X.svg("a", { href: X.address(`feature/${other}`, { ...state, at: String(dictionary.number) }) }, X.svg("text", { x: 474, y: high(k, others.length) + 4 }, `${other}  ${X.short(dictionary.labels[other].split("\u0001")[0]).slice(0, 18)}`));
    nodes.push(link);
  });
  nodes.push(X.svg("rect", { class: "node", x: 4, y: middle - 14, width: 92, height: 28, rx: 6 }), X.svg("text", { x: 50, y: middle + 4, "text-anchor": "middle" }, `feature ${feature}`));
  const more = given.column_entries > given.rows.length ? ` The ${given.rows.length} largest of ${X.number(given.column_entries)}.` : "";
  return X.el("div", { class: "panel" }, X.el("h2", {}, "Coordinates"),
    X.svg("svg", { viewBox: `0 0 640 ${height}`, role: "img", "aria-label": "Coordinates of the feature, and features that share them", width: 640, height }, edges, nodes),
    X.el("p", { class: "quiet small" }, `It writes to ${given.rows.length === 1 ? "one coordinate" : given.rows.length + " coordinates"} (solid: plus, dashed: minus).${more} On the right, features that share most of them; click to walk there.`));
};

X.card = function (dictionary, feature, given, state) {
  const dead = given.status === "dead", group = GROUPS.some(([name]) => name === state.tab) ? state.tab : "strongest";
  const scores = [["fires on", `${X.percent(given.density)} of tokens (${X.number(given.fired)}, in ${X.number(given.documents)} documents)`],
    ["largest activation", dead ? null : X.number(given.largest)], ["mean activation", dead ? null : X.number(given.mean)], ["mean rank of its pick", X.known(given.rank_mean) ? given.rank_mean.toFixed(1) : null],
    ["token R²", X.known(given.token_r2) ? given.token_r2.toFixed(3) : null], ["purity", X.known(given.purity) ? given.purity.toFixed(2) : null], ["coherence", X.known(given.coherence) ? given.coherence.toFixed(3) : null]];
  const show = X.el("div", {}, X.contexts(given, group));
  const tabs = X.el("div", { class: "tabs", role: "tablist" }, GROUPS.filter(([name]) => given.contexts.some((context) => context.group === name)).map(([name, title]) =>
    X.el("button", { role: "tab", "aria-selected": String(name === group), onclick: () => X.go(`feature/${feature}`, { ...state, tab: name }) }, title)));
  const logits = (title, tokens, numbers) => !tokens || !tokens.length ? null : X.el("div", {}, X.el("h2", {}, title), X.chips(tokens, numbers.map((value) => X.number(value))));
  return [
    X.el("div", { class: "row" }, X.el("h1", {}, `${dictionary.name} · feature ${feature}`), given.status !== "alive" ? X.el("span", { class: "chip" }, given.status) : null,
      window.LIVE && dictionary.number === 0 && !dead ? X.el("button", { class: "primary", onclick: () => X.steerWith(feature) }, "steer with it") : null),
    X.el("div", { class: "panels" }, X.el("div", { class: "panel" }, X.facts(scores)),
      dead ? null : X.el("div", { class: "panel" }, X.histogram(given.histogram, 0, given.largest, "activation")),
      !given.top_tokens ? null : X.el("div", { class: "panel" }, logits("Makes likelier", given.top_tokens, given.top_token_logits), logits("Makes less likely", given.bottom_tokens, given.bottom_token_logits))),
    dead ? X.el("p", { class: "warn" }, "This feature fired on no token of the text.") : X.el("div", {}, X.el("h2", {}, "Contexts"), tabs, show),
    X.el("div", { class: "panels" },
      X.related(dictionary, "Fires together with", "how many standard deviations more often than by chance; tokens on which both fire", given.together, given.together_z || [], given.together_count, state),
      X.related(dictionary, "Fires instead of", "how many standard deviations less often than by chance", given.instead, given.instead_z || [], given.instead_count, state),
      X.related(dictionary, "Nearest columns", "cosine of the columns", given.nearest, given.nearest_cosine || [], null, state)),
    given.rows && given.rows.length ? X.graph(dictionary, feature, given, state) : null,
  ];
};

X.featurePage = async function (main, feature, state) {
  const first = X.dictionaries[Number(state.at) || 0] || X.dictionaries[0];
  if (!(feature >= 0 && feature < first.n)) {
    main.replaceChildren(X.el("p", { class: "warn" }, `There is no feature ${feature}; they are numbered from 0 to ${first.n - 1}.`));
    return;
  }
  const asked = location.hash;
  let given, matched = null, other = null, match = -1;
  try {
    given = await X.feature(first, feature);
    if (X.dictionaries.length > 1) {
      other = X.dictionaries[1 - first.number];
      match = first.columns.match[feature];
      if (match >= 0) matched = await X.feature(other, match);
    }
  } catch (error) { X.sorry(error.message); return; }
  if (location.hash !== asked) return; // another page was asked for in the meantime
  const order = X.list && X.list.length && first.number === 0 ? X.list : Int32Array.from({ length: first.n }, (_, i) => i), place = order.indexOf(feature);
  const step = (by) => { const next = order[place + by]; if (next !== undefined) X.go(`feature/${next}`, state); };
  X.moves = { next: () => step(1), previous: () => step(-1), open: () => {} };
  const card = X.el("div", {}, X.card(first, feature, given, state));
  if (!other) { main.replaceChildren(card); return; }
  const right = matched === null ? X.el("p", { class: "quiet" }, `No feature of ${other.name} points the same way.`) :
    X.el("div", {}, X.el("p", { class: "small quiet" }, `Matched by its column: cosine ${X.number(first.columns.match_cosine[feature], 2)}.`), X.card(other, match, matched, state));
  main.replaceChildren(X.el("div", { class: "side" }, card, right));
};
