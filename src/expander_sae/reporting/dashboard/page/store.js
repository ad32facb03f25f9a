// The data of the page: packed columns in data.js, and pages of features in shards that are loaded when they are needed.
// From a disk a browser loads scripts and nothing else, so both are scripts that hand over what they hold.
"use strict";

X.dictionaries = []; // one, or two side by side
X.waiting = new Map(); // shards on their way, by folder/number
X.shards = new Map();

const KINDS = { u1: Uint8Array, i4: Int32Array, f4: Float32Array };

X.unpacked = async function (text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).arrayBuffer();
};
X.parsed = async (text) => JSON.parse(new TextDecoder().decode(await X.unpacked(text)));

// Called by data.js with everything of all dictionaries.
X.receive = async function (given) {
  if (typeof DecompressionStream === "undefined") {
    X.sorry("This browser cannot unpack the page's data (DecompressionStream); a newer one can.");
    return;
  }
  for (const packed of given.dictionaries) {
    const columns = {};
    for (const [name, column] of Object.entries(packed.columns)) columns[name] = await X.column(column);
    const labels = await X.parsed(packed.labels);
    X.dictionaries.push({ ...packed, columns, labels, ...X.folded(labels), orders: new Map(), held: new Map(),
      rows: null, touching: null });
  }
  X.start();
};

X.column = async (packed) => new KINDS[packed.kind](await X.unpacked(packed.data));

// All labels in small letters as one string, which is searched many times faster than one after the other, and where each
// begins in it; between them is what nobody types.
X.folded = function (labels) {
  const begins = new Uint32Array(labels.length + 1), parts = labels.map((label) => label.toLowerCase());
  parts.forEach((part, j) => { begins[j + 1] = begins[j] + part.length + 1; });
  return { folded: parts.join("\u0002"), begins };
};

X.sorry = (sentence) => document.getElementById("main").replaceChildren(X.el("p", { class: "warn" }, sentence));

// Called by a shard.
X.shard = async function (folder, number, text) {
  const key = `${folder}/${number}`;
  X.shards.set(key, await X.parsed(text));
  X.waiting.get(key)?.resolve();
};

// Everything about one feature of a dictionary; its coordinates, or its atoms, are unpacked when a page of a feature is first wanted.
X.feature = async function (dictionary, feature) {
  dictionary.rows ||= await X.column(dictionary.touched);
  if (dictionary.atoms) dictionary.weights ||= await X.column(dictionary.atoms);
  const number = Math.floor(feature / dictionary.per_shard), key = `${dictionary.pages}/${number}`;
  if (!X.shards.has(key)) {
    if (!X.waiting.has(key)) X.waiting.set(key, X.load(dictionary, number, key));
    await X.waiting.get(key).promise;
  }
  return X.shards.get(key)[feature - number * dictionary.per_shard];
};

X.load = function (dictionary, number, key) {
  const asked = {};
  asked.promise = new Promise((resolve, reject) => Object.assign(asked, { resolve, reject }));
  const script = X.el("script", { src: `${dictionary.pages}/${String(number).padStart(5, "0")}.js` });
  script.onload = () => script.remove();
  script.onerror = () => {
    X.waiting.delete(key);
    asked.reject(new Error(`The file ${key} of this page is missing; write the dashboard again.`));
  };
  document.head.append(script);
  return asked;
};

// Which features touch every coordinate, or have every atom: the other side of the bipartite graph, made when it is first wanted. Those of
// coordinate i are what lies between begins[i] and begins[i + 1].
X.touching = function (dictionary) {
  if (dictionary.touching) return dictionary.touching;
  const { rows, listed } = dictionary;
  let most = -1;
  for (let at = 0; at < rows.length; at++) if (rows[at] > most) most = rows[at];
  const begins = new Uint32Array(most + 2);
  for (let at = 0; at < rows.length; at++) if (rows[at] >= 0) begins[rows[at] + 1]++; // -1 where a column is shorter
  for (let row = 0; row <= most; row++) begins[row + 1] += begins[row];
  const next = begins.slice(), features = new Int32Array(begins[most + 1]);
  for (let at = 0; at < rows.length; at++) if (rows[at] >= 0) features[next[rows[at]]++] = Math.floor(at / listed);
  dictionary.touching = (row) => features.subarray(begins[row], begins[row + 1]);
  return dictionary.touching;
};

// The coordinates that a feature touches, or the atoms that it is a mixture of, the one that adds most first.
X.touched = (dictionary, feature) =>
  dictionary.rows.subarray(feature * dictionary.listed, (feature + 1) * dictionary.listed);
