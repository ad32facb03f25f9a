// Elements, numbers, tokens and small pictures. Whatever comes from a text is set as text, never as markup.
"use strict";
var X = {};

const SVG = "http://www.w3.org/2000/svg";

// An element with its attributes (on... are listeners) and its children, of which those that are null are left out.
X.el = function (name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (key === "style") for (const [property, to] of Object.entries(value)) node.style.setProperty(property, to);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

X.svg = function (name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.flat());
  return node;
};

// A table of rows of cells; what is no element is put into one.
X.rows = function (heads, rows) {
  const head = heads && X.el("thead", {}, X.el("tr", {}, heads.map((title) => X.el("th", { scope: "col" }, title))));
  const cell = (content) => (content instanceof HTMLTableCellElement ? content : X.el("td", {}, content));
  return X.el("table", { class: "plain" }, head,
    X.el("tbody", {}, rows.map((cells) => X.el("tr", {}, cells.filter((each) => each !== null).map(cell)))));
};
X.numeric = (text, attributes) => X.el("td", { class: "number", ...attributes }, text);

X.panel = (title, ...children) => X.el("section", { class: "panel" }, title ? X.el("h2", {}, title) : null, ...children);

X.facts = (pairs) =>
  X.el("dl", { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => [X.el("dt", {}, name), X.el("dd", {}, String(value))])
      .flat());

X.known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

X.number = function (value, digits) {
  if (!X.known(value)) return "–";
  if (digits !== undefined) return value.toFixed(digits);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size < 0.001 || size >= 1e6 ? value.toExponential(1) : value.toPrecision(3);
};

X.percent = function (share) {
  if (!X.known(share)) return "–";
  const percent = 100 * share, size = Math.abs(percent);
  if (size >= 99.5) return percent.toFixed(0) + " %";
  if (size === 0 || size >= 0.001) return Number(percent.toPrecision(2)) + " %";
  return percent.toExponential(0) + " %";
};

// White space that would move the text around is shown, and control characters, which would be invisible.
const SEEN = { "\n": "↵\n", "\r": "␍", "\t": "⇥", "\u0000": "␀" };
X.spelled = (text) =>
  text.replace(/[\n\r\t\u0000]/g, (c) => SEEN[c]).replace(/[\u0001-\u0008\u000b-\u001f\u007f]/g, "�");
// The same on one line, with long runs of spaces counted.
X.short = (text) => X.spelled(text).replace(/↵\n/g, "↵").replace(/ {4,}/g, (run) => `␣×${run.length}`);

// A token coloured by how strongly a feature fires on it, compared with `top`.
X.token = function (text, activation, top, settings) {
  const { peak, onclick, title, oneLine } = settings || {};
  const share = top > 0 ? Math.min(1, Math.abs(activation) / top) : 0;
  const node = X.el(onclick ? "button" : "span", { class: "token", onclick });
  node.textContent = (oneLine ? X.short : X.spelled)(text === null ? "�" : text);
  node.classList.toggle("peak", Boolean(peak));
  if (share > 0) {
    node.classList.add("on");
    node.style.setProperty("--strength", `${(8 + 62 * share).toFixed(0)}%`);
    node.style.setProperty("--hue", activation < 0 ? "var(--against)" : "var(--fire)");
  }
  node.title = title || (share > 0 ? X.number(activation) : "silent");
  return node;
};

X.chip = (text, title) => X.el("span", { class: "chip", title }, X.short(text));
X.chips = (texts, titles) => X.el("div", { class: "chips" }, texts.map((text, i) => X.chip(text, titles[i])));

// Bars over equal bins, with what stands at both ends of the axis; every bar says what it counts.
X.histogram = function (counts, low, high, name, said) {
  const width = 420, height = 130, base = 108, step = width / counts.length;
  const most = Math.max(1, ...counts), spell = said || X.number;
  const edge = (i) => low + ((high - low) * i) / counts.length;
  const bars = counts.map((count, i) => {
    const tall = count > 0 ? Math.max(1.5, ((base - 8) * count) / most) : 0;
    return X.svg("rect",
      { class: "bar", x: (i * step + 0.5).toFixed(1), y: (base - tall).toFixed(1), width: Math.max(1, step - 1).toFixed(1),
        height: tall.toFixed(1) },
      X.svg("title", {}, `${spell(edge(i))} to ${spell(edge(i + 1))}: ${X.number(count)}`));
  });
  const label = (x, anchor, text) => X.svg("text", { x, y: base + 16, "text-anchor": anchor, class: "quiet" }, text);
  return X.svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name, width, height }, bars,
    X.svg("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }),
    label(0, "start", spell(low)), label(width / 2, "middle", name), label(width, "end", spell(high)));
};
