// A feature: what it fires on, what it writes, who fires with it, and the coordinates or atoms that it shares with others.
"use strict";

const GROUPS = [
  ["strongest", "strongest"], ["q4", "top quarter"], ["q3", "third quarter"], ["q2", "second quarter"],
  ["q1", "weakest quarter"], ["random", "at random"],
];
const NEIGHBOURS = 12; // features that the graph shows on the right

X.featureAddress = (dictionary, feature, state) =>
  X.address(`feature/${feature}`, { ...state, at: dictionary.number ? String(dictionary.number) : undefined });

// What a feature fires on, in so many characters.
X.named = (dictionary, feature, length) =>
  X.short(dictionary.labels[feature].split("\u0001")[0]).replace(/ +/g, " ").trim().slice(0, length);

X.link = (dictionary, feature, state) =>
  X.el("span", {}, X.el("a", { href: X.featureAddress(dictionary, feature, state) }, String(feature)),
    X.el("span", { class: "quiet text" }, "  " + X.named(dictionary, feature, 26)));

// Other features, each with a number and, if there are any, counts of tokens.
X.related = function (dictionary, title, about, features, numbers, counts, state) {
  if (!features || !features.length) return null;
  return X.panel(title, X.rows(null, features.map((feature, i) => [
    X.link(dictionary, feature, state),
    X.numeric(X.number(numbers[i], 2)),
    counts ? X.numeric(X.number(counts[i])) : null,
  ])), X.el("p", { class: "quiet small" }, about));
};

X.contexts = function (given, group) {
  const chosen = given.contexts.filter((context) => context.group === group);
  return X.el("div", { role: "tabpanel" }, chosen.map((context) => {
    const texts = context.tokens || context.token_ids.map((id) => ` ${id}`);
    return X.el("div", { class: "context" },
      X.el("div", { class: "number", title: `document ${context.document}, position ${context.position}` },
        X.number(context.activation)),
      X.el("div", { class: "text", dir: "auto" }, texts.map((text, i) =>
        X.token(text, context.activations[i], given.largest, { peak: i === context.peak, oneLine: true }))));
  }));
};

// The features that share most coordinates, or atoms, with one; those that fire on the text where there are any.
X.sharing = function (dictionary, feature, rows) {
  const touching = X.touching(dictionary), shared = new Map();
  for (const row of rows) for (const other of touching(row)) shared.set(other, (shared.get(other) || 0) + 1);
  shared.delete(feature);
  const fires = (other) => dictionary.columns.fired[other] > 0;
  return [...shared].sort((a, b) => fires(b[0]) - fires(a[0]) || b[1] - a[1] || a[0] - b[0]).slice(0, NEIGHBOURS).map(([other]) => other);
};

// A small bipartite graph: the feature, the coordinates or atoms that its column has, and features that share them.
X.graph = function (dictionary, feature, rows, values, state) {
  const others = X.sharing(dictionary, feature, rows), { atoms } = dictionary, room = atoms ? 130 : 0;
  const name = (row) => X.svg("text", { x: 256, y: high(rows.indexOf(row), rows.length) + 4 },
    atoms ? `${row}  ${X.atomName(dictionary, row, 16)}` : String(row));
  const height = Math.max(rows.length, others.length, 3) * 26 + 12, middle = height / 2;
  const high = (i, count) => ((i + 0.5) * height) / count, most = Math.max(...values.map(Math.abs), 1e-9);
  const curve = (x1, y1, x2, y2) => `M${x1} ${y1} C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`;
  const edges = [], nodes = [];
  rows.forEach((row, i) => {
    const y = high(i, rows.length), value = values[i], strength = Math.abs(value) / most;
    const drawn = { d: curve(104, middle, 250, y), "stroke-width": (0.6 + 3.4 * strength).toFixed(2) };
    edges.push(X.svg("path", { class: value < 0 ? "edge minus" : "edge", ...drawn },
      X.svg("title", {}, `${X.number(value)} ${atoms ? "of atom" : "at coordinate"} ${row}`)));
    const walked = atoms && X.isAtom(dictionary, row);
    nodes.push(walked ? X.svg("a", { href: X.featureAddress(dictionary, row, state) }, name(row)) : name(row),
      X.svg("text", { x: 340 + room, y: y + 4, class: "quiet", "text-anchor": "end" }, X.number(value, 2)));
    others.forEach((other, k) => {
      if (!X.touched(dictionary, other).includes(row)) return;
      edges.push(X.svg("path", { class: "edge thin", d: curve(348 + room, y, 468 + room, high(k, others.length)) }));
    });
  });
  others.forEach((other, k) => nodes.push(
    X.svg("a", { href: X.featureAddress(dictionary, other, state) },
      X.svg("text", { x: 474 + room, y: high(k, others.length) + 4 }, `${other}  ${X.named(dictionary, other, 18)}`))));
  nodes.push(X.svg("rect", { class: "node", x: 2, y: middle - 14, width: 102, height: 28, rx: 6 }),
    X.svg("text", { x: 53, y: middle + 4, "text-anchor": "middle" }, `feature ${feature}`));
  return X.svg("svg", { class: "graph", viewBox: `0 0 ${640 + room} ${height}`, width: 640 + room, height, role: "img",
    "aria-label": `${atoms ? "Atoms" : "Coordinates"} of the feature, and features that share them` }, edges, nodes);
};

X.coordinates = function (dictionary, feature, given, state) {
  if (dictionary.atoms || !given.rows || !given.rows.length) return null;
  const count = given.rows.length, all = given.column_entries > count ? `, the largest of ${X.number(given.column_entries)}` : "";
  return X.panel("Coordinates", X.graph(dictionary, feature, given.rows, given.values, state),
    X.el("p", { class: "quiet small" },
      `Its column writes to ${count === 1 ? "one coordinate" : `${count} coordinates`}${all} (solid: plus, dashed: minus). ` +
      "On the right, features that share most of them; click one to walk there."));
};

X.scores = (given) => X.facts([
  ["fires on", `${X.percent(given.density)} of tokens (${X.number(given.fired)}, in ${X.number(given.documents)} documents)`],
  ["largest activation", X.known(given.largest) ? X.number(given.largest) : null],
  ["mean activation", X.known(given.mean) ? X.number(given.mean) : null],
  ["mean rank of its pick", X.known(given.rank_mean) ? given.rank_mean.toFixed(1) : null],
  ["token R²", X.known(given.token_r2) ? given.token_r2.toFixed(3) : null],
  ["purity", X.known(given.purity) ? given.purity.toFixed(2) : null],
]);

// The tokens whose logits the feature raises and lowers most.
X.logits = function (given) {
  const some = (title, tokens, logits) => tokens && tokens.length
    ? [X.el("h2", {}, title), X.chips(tokens, logits.map((value) => X.number(value)))] : [];
  const found = [
    ...some("Makes likelier", given.top_tokens, given.top_token_logits),
    ...some("Makes less likely", given.bottom_tokens, given.bottom_token_logits),
  ];
  return found.length ? X.panel(null, ...found) : null;
};

X.firings = function (dictionary, feature, given, state) {
  if (given.status === "dead") return X.el("p", { class: "warn" }, "This feature fired on no token of the text.");
  const there = GROUPS.filter(([name]) => given.contexts.some((context) => context.group === name));
  const chosen = there.some(([name]) => name === state.tab) ? state.tab : "strongest";
  const show = (name) => () => X.go(`feature/${X.where().path[1]}`, { ...state, tab: name });
  return X.el("div", {}, X.el("h2", {}, "Contexts"),
    X.el("div", { class: "tabs", role: "tablist" }, there.map(([name, title]) =>
      X.el("button", { role: "tab", "aria-selected": String(name === chosen), onclick: show(name) }, title))),
    X.contexts(given, chosen));
};

X.card = function (dictionary, feature, given, state) {
  const dead = given.status === "dead", live = window.LIVE && dictionary.number === 0 && !dead;
  const related = (title, about, name, number, count) =>
    X.related(dictionary, title, about, given[name], given[number] || [], count ? given[count] : null, state);
  return X.el("article", {},
    X.el("div", { class: "row" }, X.el("h1", {}, `${dictionary.name} · feature ${feature}`),
      given.status === "alive" ? null : X.el("span", { class: "chip" }, given.status),
      live ? X.el("button", { class: "primary", id: "steer", onclick: () => X.steerWith(feature) }, "steer with it") : null),
    X.el("div", { class: "panels" },
      X.panel(null, X.scores(given)),
      dead ? null : X.panel("Activations", X.histogram(given.histogram, 0, given.largest, "activation")),
      X.logits(given)),
    X.atoms(dictionary, feature, given, state),
    X.firings(dictionary, feature, given, state),
    X.el("div", { class: "panels" },
      related("Fires together with", "Standard deviations above chance, and tokens.", "together", "together_z", "together_count"),
      related("Fires instead of", "Standard deviations below chance, and tokens.", "instead", "instead_z", "instead_count"),
      related("Nearest columns", "Cosine of the columns.", "nearest", "nearest_cosine", null)),
    X.coordinates(dictionary, feature, given, state));
};

// The feature of the other dictionary that fires most nearly on the same tokens, or, where no tokens were shared, that
// writes most nearly the same.
X.rival = async function (dictionary, feature, state) {
  if (X.dictionaries.length < 2) return null;
  const other = X.dictionaries[1 - dictionary.number], columns = dictionary.columns;
  const nearest = columns.match[feature], cosine = X.number(columns.match_cosine[feature], 2);
  const match = (columns.fires_like || columns.match)[feature];
  const column = nearest < 0 ? null : X.el("a", { href: X.featureAddress(other, nearest, state) }, String(nearest));
  if (match < 0) {
    const why = columns.fires_like ? "fires on a token with this one" : "points the same way";
    return X.el("p", { class: "quiet" }, `No feature of ${other.name} ${why}.`,
      columns.fires_like && column ? [" The nearest column there is ", column, `, cosine ${cosine}.`] : null);
  }
  const card = X.card(other, match, await X.feature(other, match), state);
  const fires = columns.fires_like && `fires most like it there, cosine of activations ${X.number(columns.fires_like_cosine[feature], 2)}`;
  card.firstChild.append(X.el("span", { class: "small quiet" },
    !fires ? `nearest column there, cosine ${cosine}`
      : match === nearest ? `${fires}; also the nearest column there, cosine ${cosine}`
      : column ? [`${fires}; nearest column there `, column, `, cosine ${cosine}`] : fires));
  return card;
};

X.featurePage = async function (main, dictionary, feature, state) {
  if (!(Number.isInteger(feature) && feature >= 0 && feature < dictionary.n)) {
    X.sorry(`There is no feature ${feature}; they are numbered from 0 to ${dictionary.n - 1}.`);
    return;
  }
  const asked = location.hash;
  let cards;
  try {
    const given = await X.feature(dictionary, feature);
    cards = [X.card(dictionary, feature, given, state), await X.rival(dictionary, feature, state)].filter(Boolean);
  } catch (error) {
    X.sorry(error.message);
    return;
  }
  if (location.hash !== asked) return; // another page was asked for in the meantime
  // j and k walk along the list that the table showed last.
  const listed = X.list && X.list.dictionary === dictionary && X.list.features.includes(feature);
  const order = listed ? X.list.features : X.ordered(dictionary, "feature", false), place = order.indexOf(feature);
  const step = (by) => { if (order[place + by] !== undefined) X.go(`feature/${order[place + by]}`, state); };
  X.moves = { next: () => step(1), previous: () => step(-1), open: () => {} };
  main.replaceChildren(X.el("div", { class: cards.length > 1 ? "side" : "" }, cards));
};
