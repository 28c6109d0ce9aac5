// The page: hears the stream, keeps the state, shows what changed.

import { Connection } from "./connection.js";
import { State } from "./state.js";
import { dayAndTime, language, word } from "./strings.js";
import { RunCard, buildItem, element, emptiness, news, report, verdict } from "./view.js";

const at = (id) => document.getElementById(id);
const state = new State();
const cards = new Map();
const dirty = new Set();
let drawing = false;

// --- showing ----------------------------------------------------------------------------------

function changed(...ids) {
  for (const id of ids) dirty.add(id);
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(draw);
  }
}

function draw() {
  drawing = false;
  const runs = state.newestFirst();
  drawRuns(runs);
  at("latest-body").replaceChildren(report(state.latest));
  at("latest").hidden = runs.length === 0;
  at("runs").hidden = false;
  document.title = state.latest ? `${verdict(state.latest)} · AI Feedback Loop` : "AI Feedback Loop";
  const others = state.otherBuilds();
  at("builds").replaceChildren(...others.map(buildItem));
  at("building").hidden = others.length === 0;
  at("empty").hidden = runs.length > 0;
  at("latest").removeAttribute("aria-busy");
}

function drawRuns(runs) {
  for (const [id, card] of cards) {
    if (!state.runs.has(id)) {
      card.element.remove();
      cards.delete(id);
    }
  }
  runs.forEach((run, index) => {
    let card = cards.get(run.id);
    if (!card) cards.set(run.id, (card = new RunCard(run)));
    if (dirty.has(run.id)) card.update(run, state.stepsOf(run), state.buildOf(run));
    const there = at("list").children[index];
    if (there !== card.element) at("list").insertBefore(card.element, there ?? null);
  });
  dirty.clear();
}

function say(text) {
  if (text) at("said").textContent = text;
}

// --- hearing ----------------------------------------------------------------------------------

const HEARD = {
  hello(data) {
    if (data.resumed) return;
    state.replace(data);
    changed(...state.runs.keys());
  },
  run(row) {
    const before = state.run(row);
    if (state.runs.has(row.id)) say(news(before, row));
    changed(row.id);
  },
  step(row) {
    state.step(row);
    changed(row.run);
  },
  progress({ builds }) {
    state.progress(builds);
    changed(...builds.map((build) => build.run));
  },
  trouble() {
    stand("trouble");
  },
  beat() {},
};

function hear(event, data) {
  HEARD[event](data);
  if (event !== "trouble" && event !== "beat") state.asOf = Date.now();
}

// --- how the connection stands ----------------------------------------------------------------

function stand(link, reason = "") {
  if (at("link").dataset.state !== link) {
    at("link").dataset.state = link;
    at("link").textContent = word(`link.${link}`);
  }
  const old = link === "trouble" && state.asOf ? [dayAndTime(new Date(state.asOf).toISOString())] : null;
  const text = old ? word("notice.trouble.old", old) : word(`notice.${link}`, [], "");
  if (at("notice-text").textContent !== text) at("notice-text").textContent = text;
  if (at("notice-reason").textContent !== reason) at("notice-reason").textContent = reason;
  at("notice").hidden = !text;
}

// --- beginning --------------------------------------------------------------------------------

for (const place of document.querySelectorAll("[data-text]")) place.textContent = word(place.dataset.text);
for (const place of document.querySelectorAll("[data-label]"))
  place.setAttribute("aria-label", word(place.dataset.label));
for (const link of document.querySelectorAll("#languages a")) {
  if (link.lang === language) link.setAttribute("aria-current", "true");
}
at("latest-body").replaceChildren(element("p", { class: "quiet" }, word("loading")));
at("empty").replaceChildren(...emptiness());
stand("connecting");
new Connection(hear, stand).open();
