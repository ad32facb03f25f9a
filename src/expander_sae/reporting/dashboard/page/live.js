// The model behind the page: type and see what fires, turn features up or down and read what it then writes.
// Only `expander view` serves this; it sets window.LIVE with the token that every request has to carry.
"use strict";

X.edits = []; // { feature, kind, strength, from }
X.typed = "The capital of France is";

X.ask = async function (path, body, signal) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json", "x-token": window.LIVE.token }, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `The server answered ${answer.status}.`);
  return answer;
};

// Lines of JSON as they come.
X.lines = async function* (answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
};

X.steerWith = function (feature) {
  if (!X.edits.some((edit) => edit.feature === feature)) X.edits.push({ feature, kind: "add", strength: 1, from: "all" });
  X.go("live", {});
};

X.live = function (main, state) {
  const dictionary = X.dictionaries[0];
  const text = X.el("textarea", { "aria-label": "Text", id: "text" });
  text.value = X.typed;
  const seen = X.el("div", { class: "text", id: "seen", "aria-live": "polite" }), fires = X.el("div", { id: "fires" }), said = X.el("p", { class: "quiet small" });
  let shown = state.feature === undefined || state.feature === "" ? null : Number(state.feature), last = null, timer = null, running = null;

  function draw(result) {
    last = result;
    let top = 0;
    const strengths = result.tokens.map((token) => {
      const value = shown === null ? token.features.reduce((a, f) => Math.max(a, Math.abs(f.value)), 0) : token.features.find((f) => f.feature === shown)?.value || 0;
      top = Math.max(top, Math.abs(value));
      return value;
    });
    seen.replaceChildren(...result.tokens.map((token, i) => X.token(token.text, strengths[i], top, {
      onclick: () => { for (const node of seen.children) node.classList.remove("chosen"); seen.children[i].classList.add("chosen"); look(token); },
      title: token.massive ? "passes unchanged: special or massive" : `${token.features.length} features`,
    })));
    said.textContent = shown === null ? "Coloured by the strongest feature of each token; click a token to see all of its features." : `Coloured by feature ${shown}.`;
    const place = result.tokens.findLastIndex((token) => token.features.length);
    if (place >= 0) { seen.children[place].classList.add("chosen"); look(result.tokens[place]); } else fires.replaceChildren();
  }
  function look(token) {
    fires.replaceChildren(X.el("table", { class: "plain" }, X.el("thead", {}, X.el("tr", {}, ["feature", "activation", "explains", ""].map((name) => X.el("th", {}, name)))),
      X.el("tbody", {}, token.features.map((each) => X.el("tr", {}, X.el("td", {}, X.link(dictionary, each.feature, {})), X.el("td", { class: "number" }, X.number(each.value)),
        X.el("td", { class: "number", title: "how much of this token's squared norm goes when the feature is taken along" }, X.percent(each.share)),
        X.el("td", {}, X.el("button", { title: "where else it fires in this text", onclick: () => { shown = each.feature; draw(last); } }, "show"), " ", X.el("button", { onclick: () => { X.steerWith(each.feature); steering(); } }, "steer")))))));
  }
  async function encode() {
    X.typed = text.value;
    running?.abort();
    running = new AbortController();
    if (!text.value) { seen.replaceChildren(); fires.replaceChildren(); return; }
    said.textContent = "reading …";
    try { draw(await (await X.ask("/api/encode", { text: text.value }, running.signal)).json()); }
    catch (error) { if (error.name !== "AbortError") said.textContent = error.message; }
  }
  text.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(encode, 250); });

  const panel = X.el("div", { class: "panel" });
  const without = X.el("div", { class: "text", id: "without" }), steered = X.el("div", { class: "text", id: "steered" }), table = X.el("div", { id: "next" }), note = X.el("p", { class: "quiet small", "aria-live": "polite" });
  const tokens = X.el("input", { type: "number", min: 1, max: 400, value: 30, "aria-label": "Tokens" }), temperature = X.el("input", { type: "number", min: 0, step: 0.1, value: 0, "aria-label": "Temperature" }), seed = X.el("input", { type: "number", value: 0, "aria-label": "Seed" });
  let writing = null;

  function steering() {
    const rows = X.edits.map((edit, i) => {
      const strength = X.el("input", { type: "range", min: -3, max: 3, step: 0.1, value: edit.strength, "aria-label": `Strength of feature ${edit.feature}` }), exact = X.el("input", { type: "number", step: 0.1, value: edit.strength, "aria-label": "Strength" });
      const set = (value) => { edit.strength = Number(value); strength.value = exact.value = value; };
      strength.addEventListener("input", () => set(strength.value));
      exact.addEventListener("input", () => { edit.strength = Number(exact.value); strength.value = exact.value; });
      const kind = X.el("select", { "aria-label": "What to do" }, ["add", "clamp", "scale", "ablate"].map((name) => X.el("option", { value: name, selected: name === edit.kind }, name)));
      kind.addEventListener("change", () => { edit.kind = kind.value; });
      const from = X.el("select", { "aria-label": "Where" }, [["all", "everywhere"], ["generated", "what it writes"]].map(([name, title]) => X.el("option", { value: name, selected: name === edit.from }, title)));
      from.addEventListener("change", () => { edit.from = from.value; });
      return X.el("div", { class: "row edit" }, kind, X.link(dictionary, edit.feature, {}), strength, exact, from, X.el("button", { "aria-label": "Remove", onclick: () => { X.edits.splice(i, 1); steering(); } }, "×"));
    });
    const add = X.el("input", { type: "number", min: 0, max: dictionary.n - 1, placeholder: "feature", "aria-label": "Feature to add", id: "add" });
    const go = X.el("button", { class: "primary", id: "write", onclick: write }, "Write"), stop = X.el("button", { id: "stop", disabled: true, onclick: () => writing?.abort() }, "Stop");
    add.addEventListener("keydown", (event) => { if (event.key === "Enter" && add.value !== "") { X.steerWith(Number(add.value)); steering(); } });
    panel.replaceChildren(X.el("h2", {}, "Steer"), X.el("p", { class: "quiet small" }, "Strengths are in units of a feature's own largest activation (scale: a factor). The text above is the prompt."), ...rows,
      X.el("div", { class: "row" }, add, X.el("button", { onclick: () => { if (add.value !== "") { X.steerWith(Number(add.value)); steering(); } } }, "add feature")),
      X.el("div", { class: "row" }, "tokens", tokens, "temperature", temperature, "seed", seed, go, stop), note,
      X.el("div", { class: "side" }, X.el("div", {}, X.el("h2", {}, "Without"), without), X.el("div", {}, X.el("h2", {}, "Steered"), steered)), table);
  }
  async function write() {
    writing?.abort();
    writing = new AbortController();
    const stop = document.getElementById("stop");
    stop.disabled = false;
    without.textContent = steered.textContent = "";
    table.replaceChildren();
    note.textContent = "waiting for the model …";
    try {
      const answer = await X.ask("/api/steer", { prompt: text.value, edits: X.edits, tokens: Number(tokens.value), temperature: Number(temperature.value), seed: Number(seed.value) }, writing.signal);
      for await (const line of X.lines(answer)) {
        if (line.error) throw new Error(line.error);
        if (line.waiting !== undefined) note.textContent = line.waiting ? `${line.waiting} before this one …` : "";
        if (line.side) (line.side === "without" ? without : steered).textContent += line.text;
        if (line.next_tokens) next(line.next_tokens);
      }
      note.textContent = "";
    } catch (error) { note.textContent = error.name === "AbortError" ? "stopped" : error.message; }
    stop.disabled = true;
  }
  function next(changes) {
    table.replaceChildren(X.el("h2", {}, "The very next token"), X.el("table", { class: "plain" }, X.el("thead", {}, X.el("tr", {}, ["token", "without", "steered"].map((name) => X.el("th", {}, name)))),
      X.el("tbody", {}, changes.map((each) => { const chip = X.el("span", { class: "chip" }); chip.textContent = X.short(each.text); return X.el("tr", {}, X.el("td", {}, chip), X.el("td", { class: "number" }, X.percent(each.without)), X.el("td", { class: "number" }, X.percent(each.steered))); }))));
  }
  X.moves = null;
  steering();
  main.replaceChildren(X.el("h1", {}, `Live: ${window.LIVE.model}`), text, said, X.el("div", { class: "panels" }, X.el("div", { class: "panel" }, X.el("h2", {}, "What fires"), seen), X.el("div", { class: "panel" }, X.el("h2", {}, "On the chosen token"), fires)), panel);
  encode();
};

// The server stops when nobody looks: every open page says that it is there.
if (window.LIVE) setInterval(() => X.ask("/api/here", {}).catch(() => {}), 5000);
