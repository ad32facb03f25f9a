// What a mixture of atoms is made of: the atoms, each of which can be read itself, and who else is made of them.
"use strict";

const MIXTURES = 16; // that are listed of an atom

// Whether the feature of this number is this atom and nothing else, as the first ones are unless they begin anew.
X.isAtom = function (dictionary, atom) {
  const [first, second] = X.touched(dictionary, atom);
  return first === atom && !(second >= 0);
};

// The atom that adds most to a feature's column, -1 where it is an atom itself or nothing.
X.parent = (dictionary, feature) => dictionary.columns.parent[feature];

X.atomName = (dictionary, atom, length) => X.isAtom(dictionary, atom) ? X.named(dictionary, atom, length) : "";

X.atomLink = (dictionary, atom, state) => X.isAtom(dictionary, atom)
  ? X.el("a", { href: X.featureAddress(dictionary, atom, state) }, String(atom))
  : X.el("span", { title: "no feature is this atom alone" }, String(atom));

// What atoms are, by what they fire on and what they make likelier where they are features.
X.atomRows = function (dictionary, given, state) {
  const rows = given.atoms.map((atom, i) => {
    const [peaks, written] = X.isAtom(dictionary, atom) ? dictionary.labels[atom].split("\u0001") : [];
    const said = (text) => X.el("span", { class: "text" }, text ? X.short(text).replace(/ +/g, " ").trim().slice(0, 60) : "–");
    return [X.atomLink(dictionary, atom, state), X.numeric(X.number(given.atom_weights[i], 2)), said(peaks), said(written)];
  });
  return X.rows(["atom", "adds", "fires on", "makes likelier"], rows);
};

X.mixture = function (dictionary, feature, given, state) {
  const parent = X.parent(dictionary, feature);
  return X.panel("Atoms",
    X.el("p", { id: "parent" }, "Its parent, the atom that adds most to it: ", X.atomLink(dictionary, parent, state),
      X.el("span", { class: "quiet text" }, "  " + X.atomName(dictionary, parent, 40))),
    X.el("div", { class: "atoms" }, X.atomRows(dictionary, given, state)),
    X.graph(dictionary, feature, given.atoms, given.atom_weights, state),
    X.el("p", { class: "quiet small" },
      `The column that it is read by, taken as 1 long, is the sum of ${given.atoms.length} atoms as long as this ` +
      "(dashed: the opposite of one). " +
      "On the right, features that share most of them; click an atom or one of these to walk there."));
};

// The mixtures that have an atom, those that fire first, the more of it the earlier.
X.mixtures = function (dictionary, atom) {
  const { listed, rows, weights, columns } = dictionary;
  const found = [...X.touching(dictionary)(atom)].filter((other) => other !== atom).map((feature) => {
    const place = rows.indexOf(atom, feature * listed);
    return { feature, weight: weights[place], fired: columns.fired[feature] };
  });
  return found.sort((a, b) => (b.fired > 0) - (a.fired > 0) || Math.abs(b.weight) - Math.abs(a.weight) || a.feature - b.feature);
};

X.ofAtom = function (dictionary, atom, state) {
  const found = X.mixtures(dictionary, atom), firing = found.filter((each) => each.fired > 0);
  const children = found.filter((each) => X.parent(dictionary, each.feature) === atom).length;
  if (!found.length) return X.panel("Atom", X.el("p", { class: "quiet small" }, "No other feature has this atom."));
  return X.panel("Mixtures of this atom",
    X.el("div", { class: "atoms" }, X.rows(["feature", "adds", "tokens", "fires on"],
      found.slice(0, MIXTURES).map(({ feature, weight, fired }) => [
        X.el("a", { href: X.featureAddress(dictionary, feature, state) }, String(feature)), X.numeric(X.number(weight, 2)),
        X.numeric(X.number(fired)), X.el("span", { class: "text" }, X.named(dictionary, feature, 60) || "–")]))),
    X.el("p", { class: "quiet small" },
      `This feature is an atom. ${X.number(found.length)} others have it, ${X.number(firing.length)} of them fire on the text; it is the `,
      X.el("a", { href: X.address("table", { at: state.at, q: `parent=${atom}` }) }, `parent of ${X.number(children)}`),
      ". Listed are those that fire, with most of it first."));
};

X.atoms = function (dictionary, feature, given, state) {
  if (!dictionary.atoms || !given.atoms.length) return null;
  return given.atoms.length === 1 ? X.ofAtom(dictionary, given.atoms[0], state) : X.mixture(dictionary, feature, given, state);
};
