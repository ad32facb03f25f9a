// The data of the page: packed columns in data.js, and pages of features in shards that are loaded when they are needed.
// From a disk a browser loads scripts and nothing else, so both are scripts that hand over what they hold.
"use strict";

X.dictionaries = []; // one, or two side by side
X.waiting = new Map(); // shards on their way, by folder/number
X.shards = new Map();

const KINDS = { u1: Uint8Array, i4: Int32Array, f4: Float32Array };

X.unpacked = async function (text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
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
    for (const [name, column] of Object.entries(packed.columns)) {
      columns[name] = new KINDS[column.kind](await X.unpacked(column.data));
    }
    const labels = await X.parsed(packed.labels);
    const folded = labels.map((label) => label.toLowerCase());
    X.dictionaries.push({ ...packed, columns, labels, folded, orders: new Map(), touching: null });
  }
  X.start();
};

X.sorry = (sentence) => document.getElementById("main").replaceChildren(X.el("p", { class: "warn" }, sentence));

// Called by a shard.
X.shard = async function (folder, number, text) {
  const key = `${folder}/${number}`;
  X.shards.set(key, await X.parsed(text));
  X.waiting.get(key)?.resolve();
};

// Everything about one feature of a dictionary.
X.feature = async function (dictionary, feature) {
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

// Which features touch every coordinate: the other side of the bipartite graph, made when it is first wanted.
X.touching = function (dictionary) {
  if (dictionary.touching) return dictionary.touching;
  const touching = new Map();
  dictionary.columns.rows.forEach((row, at) => {
    if (row < 0) return; // a column with fewer entries than the longest
    if (!touching.has(row)) touching.set(row, []);
    touching.get(row).push(Math.floor(at / dictionary.listed));
  });
  dictionary.touching = touching;
  return touching;
};

// The coordinates that a feature touches.
X.touched = (dictionary, feature) =>
  dictionary.columns.rows.subarray(feature * dictionary.listed, (feature + 1) * dictionary.listed);
