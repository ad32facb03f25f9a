// The model behind the page: type and see what fires, turn features up or down and read what it then writes.
// Only `expander view` serves this; it sets window.LIVE with the token that every request has to carry.
"use strict";

X.edits = []; // { feature, kind, strength, from }
X.typed = "The capital of France is";
const PAUSE = 200; // milliseconds without a keystroke after which the text is read

X.ask = async function (path, body, signal) {
  const headers = { "content-type": "application/json", "x-token": window.LIVE.token };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new Error(error || `The server answered ${answer.status}.`);
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

// The server ends when nobody looks: somebody does as long as this request is open.
X.stay = async function () {
  try {
    for await (const _ of X.lines(await X.ask("/api/open", {})));
  } catch { /* the connection broke */ }
  document.body.prepend(X.el("p", { class: "warn", id: "gone" },
    "The model is not there any more: expander view has ended. Start it again and open its new address."));
};

X.steerWith = function (feature) {
  if (!X.edits.some((edit) => edit.feature === feature)) {
    X.edits.push({ feature, kind: "add", strength: 1, from: "all" });
  }
  X.go("live", {});
};

X.live = function (main) {
  const dictionary = X.dictionaries[0], steering = new X.Steering(dictionary), reading = new X.Reading(dictionary, steering);
  main.replaceChildren(X.el("h1", {}, `Live: ${window.LIVE.model}`), reading.text, reading.said,
    X.el("div", { class: "panels" }, X.panel("What fires", reading.seen), X.panel("On the chosen token", reading.fires)),
    steering.node);
  steering.draw();
  reading.read();
};

// A text, its tokens coloured by what fires on them, and the features of the token that was clicked.
X.Reading = class {
  constructor(dictionary, steering) {
    Object.assign(this, { dictionary, steering, feature: null, result: null, place: -1, timer: null, running: null });
    this.text = X.el("textarea", { id: "typed", spellcheck: "false", "aria-label": "Text" });
    this.text.value = X.typed;
    this.text.addEventListener("input", () => {
      X.typed = this.text.value; // at once: it is the prompt of whoever clicks "Write" within the pause
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.read(), PAUSE);
    });
    this.said = X.el("p", { class: "quiet small", id: "said", "aria-live": "polite" });
    this.seen = X.el("div", { class: "text", id: "seen", dir: "auto" });
    this.fires = X.el("div", { id: "fires" });
  }

  async read() {
    this.running?.abort();
    this.running = new AbortController();
    this.seen.replaceChildren();
    this.fires.replaceChildren();
    if (!this.text.value) {
      this.said.textContent = "Type or paste a text.";
      return;
    }
    this.said.textContent = "reading …";
    try {
      const answer = await X.ask("/api/encode", { text: this.text.value }, this.running.signal);
      this.result = await answer.json();
      this.place = this.result.tokens.findLastIndex((token) => token.features.length);
      this.draw();
    } catch (error) {
      if (error.name !== "AbortError") this.said.textContent = error.message;
    }
  }

  // How strongly the chosen feature fires on a token, or the one that does most, as a share of its own largest.
  strength(token) {
    const { largest } = this.dictionary.columns;
    const shares = token.features
      .filter((each) => this.feature === null || each.feature === this.feature)
      .map((each) => (largest[each.feature] > 0 ? each.value / largest[each.feature] : 1));
    return shares.reduce((most, share) => (Math.abs(share) > Math.abs(most) ? share : most), 0);
  }

  draw() {
    const { tokens } = this.result;
    this.seen.replaceChildren(...tokens.map((token, i) => X.token(token.text, this.strength(token), 1, {
      onclick: () => this.choose(i),
      title: token.massive ? "passes unchanged: special or massive" : `${token.features.length} features`,
    })));
    const all = "Coloured by the feature that is nearest to its own largest; click a token to see all that fire on it.";
    this.said.replaceChildren(...(this.feature === null ? [all] : [`Coloured by feature ${this.feature}. `,
      X.el("button", { id: "all", onclick: () => this.show(null) }, "all features")]));
    this.choose(this.place);
  }

  show(feature) {
    this.feature = feature;
    this.draw();
  }

  choose(place) {
    this.place = place;
    for (const [i, node] of [...this.seen.children].entries()) node.classList.toggle("chosen", i === place);
    const features = place < 0 ? [] : this.result.tokens[place].features;
    if (!features.length) {
      const why = "Nothing fires here: special and massive tokens pass unchanged.";
      this.fires.replaceChildren(X.el("p", { class: "quiet" }, why));
      return;
    }
    const explains = "how much of this token's squared norm is lost when the feature is taken out";
    this.fires.replaceChildren(X.rows(["feature", "activation", "explains", ""], features.map((each) => [
      X.link(this.dictionary, each.feature, {}),
      X.numeric(X.number(each.value)),
      X.numeric(X.percent(each.share), { title: explains }),
      X.el("td", { class: "acts" },
        X.el("button", { title: "where it fires in this text", onclick: () => this.show(each.feature) }, "show"),
        X.el("button", { onclick: () => this.steering.add(each.feature) }, "steer")),
    ])));
  }
};

// What is done to which features, and what the model writes without and with it.
X.Steering = class {
  constructor(dictionary) {
    this.dictionary = dictionary;
    this.writing = null;
    const number = (id, value, rest) => X.el("input", { type: "number", id, value, ...rest });
    this.tokens = number("tokens", 30, { min: 1, max: 400 });
    this.temperature = number("temperature", 0, { min: 0, step: 0.1 });
    this.seed = number("seed", 0, { min: 0 });
    const range = { min: 0, max: dictionary.n - 1 };
    this.feature = number("add", null, { ...range, placeholder: "feature", "aria-label": "Feature to add" });
    this.feature.addEventListener("keydown", (event) => { if (event.key === "Enter") this.addTyped(); });
    this.edits = X.el("div", { id: "edits" });
    this.go = X.el("button", { class: "primary", id: "write", onclick: () => this.write() }, "Write");
    this.stop = X.el("button", { id: "stop", disabled: true, onclick: () => this.writing.abort() }, "Stop");
    this.note = X.el("p", { class: "quiet small", id: "note", "aria-live": "polite" });
    const written = (id) => X.el("div", { class: "text", id, dir: "auto" });
    this.sides = { without: written("without"), steered: written("steered") };
    this.next = X.el("div", { id: "next" });
    const labelled = (name, input) => X.el("label", {}, name, " ", input);
    const about = "The text above is the prompt. Strengths count in a feature's own largest activation; scale takes a factor.";
    this.node = X.panel("Steer",
      X.el("p", { class: "quiet small" }, about),
      this.edits,
      X.el("div", { class: "row" }, this.feature, X.el("button", { onclick: () => this.addTyped() }, "add feature")),
      X.el("div", { class: "row" }, labelled("tokens", this.tokens), labelled("temperature", this.temperature),
        labelled("seed", this.seed), this.go, this.stop),
      this.note,
      X.el("div", { class: "side" }, X.el("div", {}, X.el("h2", {}, "Without"), this.sides.without),
        X.el("div", {}, X.el("h2", {}, "Steered"), this.sides.steered)),
      this.next);
  }

  add(feature) {
    X.steerWith(feature);
    this.draw();
  }

  addTyped() {
    const feature = Number(this.feature.value);
    if (this.feature.value === "") return;
    this.feature.value = "";
    const there = Number.isInteger(feature) && feature >= 0 && feature < this.dictionary.n;
    if (there) this.add(feature);
    else this.note.textContent = `There is no feature ${feature}; they are numbered from 0 to ${this.dictionary.n - 1}.`;
  }

  draw() {
    this.edits.replaceChildren(...X.edits.map((edit) => this.row(edit)));
  }

  // What is done to one feature.
  row(edit) {
    const kinds = ["add", "clamp", "scale", "ablate"].map((kind) => [kind, kind]);
    const name = `of feature ${edit.feature}`;
    const strength = { step: 0.1, value: edit.strength, "aria-label": `Strength ${name}` };
    const slider = X.el("input", { type: "range", min: -3, max: 3, ...strength });
    const exact = X.el("input", { type: "number", ...strength });
    const set = (from, to) => () => {
      edit.strength = Number(from.value);
      to.value = from.value;
    };
    slider.addEventListener("input", set(slider, exact));
    exact.addEventListener("input", set(exact, slider));
    const choice = (key, label, options) => {
      const select = X.el("select", { "aria-label": label },
        options.map(([value, title]) => X.el("option", { value, selected: value === edit[key] }, title)));
      select.addEventListener("change", () => {
        edit[key] = select.value;
        slider.disabled = exact.disabled = edit.kind === "ablate";
      });
      return select;
    };
    slider.disabled = exact.disabled = edit.kind === "ablate";
    const remove = () => {
      X.edits.splice(X.edits.indexOf(edit), 1);
      this.draw();
    };
    return X.el("div", { class: "row edit" },
      choice("kind", `What is done to feature ${edit.feature}`, kinds),
      X.link(this.dictionary, edit.feature, {}), slider, exact,
      choice("from", `Where in the text, ${name}`, [["all", "everywhere"], ["generated", "in what it writes"]]),
      X.el("button", { "aria-label": `Remove the edit ${name}`, onclick: remove }, "×"));
  }

  async write() {
    this.writing?.abort();
    const writing = new AbortController();
    this.writing = writing;
    this.stop.disabled = false;
    this.next.replaceChildren();
    for (const side of Object.values(this.sides)) side.textContent = "";
    this.note.textContent = "waiting for the model …";
    const asked = { prompt: X.typed, edits: X.edits, tokens: Number(this.tokens.value),
      temperature: Number(this.temperature.value), seed: Number(this.seed.value) };
    try {
      for await (const line of X.lines(await X.ask("/api/steer", asked, writing.signal))) this.hear(line);
      this.note.textContent = "";
    } catch (error) {
      if (this.writing !== writing) return; // a newer one writes here now
      this.note.textContent = error.name === "AbortError" ? "stopped" : error.message;
    }
    this.stop.disabled = true;
  }

  // A line of the server's answer: who is before us, a piece of text, the table at the end, or what was wrong.
  hear(line) {
    if (line.error) throw new Error(line.error);
    if (line.waiting !== undefined) this.note.textContent = line.waiting ? `${line.waiting} before this one …` : "writing …";
    if (line.side) this.sides[line.side].textContent += line.text;
    if (!line.next_tokens) return;
    const rows = line.next_tokens.map((each) =>
      [X.chip(each.text), X.numeric(X.percent(each.without)), X.numeric(X.percent(each.steered))]);
    this.next.replaceChildren(X.el("h2", {}, "The very next token"), X.rows(["token", "without", "steered"], rows));
  }
};
