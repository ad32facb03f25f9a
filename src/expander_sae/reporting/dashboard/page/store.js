// The data of the page: packed columns in data.js, and pages of features in shards that are loaded when they are needed.
// From a disk a browser loads scripts and nothing else, so both are scripts that hand over what they hold.
"use strict";

X.dictionaries = [];   // one, or two side by side
X.waiting = new Map(); // shards on their way
X.shards = new Map();

X.unpacked = async function (text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).arrayBuffer();
};

const KINDS = { u1: Uint8Array, u2: Uint16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

// Called by data.js with everything of all dictionaries.
X.receive = async function (given) {
  if (typeof DecompressionStream === "undefined") {
    X.sorry("This browser cannot unpack the page's data (DecompressionStream); a newer one can.");
    return;
  }
  for (const one of given.dictionaries) {
    const columns = {};
    await Promise.all(Object.entries(one.columns).map(async ([name, column]) => {
      columns[name] = new KINDS[column.kind](await X.unpacked(column.data));
    }));
    const labels = JSON.parse(new TextDecoder().decode(await X.unpacked(one.labels)));
    X.dictionaries.push({ ...one, columns, labels, folded: labels.map((label) => label.toLowerCase()), index: null });
  }
  X.start();
};

X.sorry = function (sentence) {
  document.getElementById("main").replaceChildren(X.el("p", { class: "warn" }, sentence));
};

// Called by a shard.
X.shard = async function (folder, number, text) {
  const features = JSON.parse(new TextDecoder().decode(await X.unpacked(text)));
  X.shards.set(`${folder}/${number}`, features);
  const waiting = X.waiting.get(`${folder}/${number}`);
  if (waiting) waiting.resolve(features);
};

// Everything about one feature of a dictionary.
X.feature = async function (dictionary, feature) {
  const number = Math.floor(feature / dictionary.per_shard), key = `${dictionary.pages}/${number}`;
  if (!X.shards.has(key)) {
    if (!X.waiting.has(key)) {
      let resolve, reject;
      const promise = new Promise((yes, no) => { resolve = yes; reject = no; });
      X.waiting.set(key, { promise, resolve });
      const script = X.el("script", { src: `${dictionary.pages}/${String(number).padStart(5, "0")}.js` + (window.LIVE ? `?token=${window.LIVE.token}` : "") });
      script.onerror = () => { X.waiting.delete(key); reject(new Error(`The file ${key} of this page is missing; write the dashboard again.`)); };
      script.onload = () => script.remove();
      document.head.append(script);
    }
    await X.waiting.get(key).promise;
  }
  return X.shards.get(key)[feature - number * dictionary.per_shard];
};

// Which features touch every coordinate: the other side of the bipartite graph, made when it is first wanted.
X.touching = function (dictionary) {
  if (dictionary.index) return dictionary.index;
  const { rows } = dictionary.columns, width = dictionary.listed, lists = new Map();
  for (let at = 0; at < rows.length; at++) {
    const row = rows[at];
    if (row < 0) continue;
    if (!lists.has(row)) lists.set(row, []);
    lists.get(row).push(Math.floor(at / width));
  }
  dictionary.index = lists;
  return lists;
};
