// Elements, numbers, tokens and small pictures. Whatever comes from a text is set as text, never as markup.
"use strict";
var X = {};

X.el = function (name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (key === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

X.svg = function (name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.flat());
  return node;
};

X.known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

X.number = function (value, digits) {
  if (!X.known(value)) return "–";
  if (Number.isInteger(value) && digits === undefined) return value.toLocaleString("en");
  if (digits !== undefined) return value.toFixed(digits);
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(1);
  return value.toPrecision(3);
};

X.percent = function (share) {
  if (!X.known(share)) return "–";
  const percent = 100 * share;
  return (percent === 0 ? "0" : percent < 0.01 ? percent.toExponential(0) : percent.toPrecision(2)) + " %";
};

// White space that would move the text around is shown; control characters would be invisible.
const SEEN = { "\n": "↵\n", "\r": "␍", "\t": "⇥", "\u0000": "␀" };
X.spelled = (text) => text.replace(/[\n\r\t\u0000]/g, (c) => SEEN[c]).replace(/[\u0001-\u0008\u000b-\u001f\u007f]/g, "�");
X.short = (text) => X.spelled(text).replace(/↵\n/g, "↵");

// A token coloured by how strongly a feature fires on it, compared with `top`.
X.token = function (text, activation, top, options) {
  const share = top > 0 ? Math.min(1, Math.abs(activation) / top) : 0;
  const settings = options || {};
  const classes = ["token"];
  if (share > 0) classes.push("on");
  if (settings.peak) classes.push("peak");
  const node = X.el(settings.onclick ? "button" : "span", { class: classes.join(" "), onclick: settings.onclick });
  node.textContent = X.spelled(text === null ? "�" : text);
  if (share > 0) {
    node.style.setProperty("--strength", (8 + 62 * share).toFixed(0) + "%");
    node.style.setProperty("--hue", activation < 0 ? "var(--against)" : "var(--fire)");
  }
  node.title = settings.title || (share > 0 ? X.number(activation) : "silent");
  return node;
};

X.chips = (texts, titles) =>
  X.el("div", { class: "chips" }, texts.map((text, i) => {
    const chip = X.el("span", { class: "chip", title: titles ? titles[i] : null });
    chip.textContent = X.short(text);
    return chip;
  }));

X.facts = (pairs) =>
  X.el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => [X.el("dt", {}, name), X.el("dd", {}, String(value))]));

// Bars over equal bins, with what stands at both ends of the axis; every bar says what it counts.
X.histogram = function (counts, low, high, name, options) {
  const width = 420, height = 130, base = 108, settings = options || {};
  const top = Math.max(1, ...counts), step = width / counts.length;
  const bars = counts.map((count, i) => {
    const tall = count > 0 ? Math.max(1.5, (base - 8) * count / top) : 0;
    const from = low + (high - low) * i / counts.length, to = low + (high - low) * (i + 1) / counts.length;
    const shown = settings.label || X.number;
    return X.svg("rect", { class: "bar", x: (i * step + 0.5).toFixed(1), y: (base - tall).toFixed(1), width: Math.max(1, step - 1).toFixed(1), height: tall.toFixed(1) },
      X.svg("title", {}, `${shown(from)} to ${shown(to)}: ${X.number(count)}`));
  });
  const said = settings.label || X.number;
  return X.svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name, width, height }, bars,
    X.svg("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }),
    X.svg("text", { x: 0, y: base + 16, class: "quiet" }, said(low)),
    X.svg("text", { x: width, y: base + 16, "text-anchor": "end", class: "quiet" }, said(high)),
    X.svg("text", { x: width / 2, y: base + 16, "text-anchor": "middle", class: "quiet" }, name));
};
