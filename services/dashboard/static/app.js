// The page: hears the stream, asks for the figures of what is filtered, shows what changed.

import { Access } from "./access.js";
import { Actions } from "./actions.js";
import { download } from "./api.js";
import { Backtest } from "./backtest.js";
import { Connection } from "./connection.js";
import { at, scheme, skeleton } from "./dom.js";
import { Filters, oneSided, under } from "./filters.js";
import { Loader } from "./loader.js";
import { emptiness, news, Runs } from "./runs.js";
import { State } from "./state.js";
import { count, dayAndTime, language, today, word } from "./strings.js";
import { report, verdict } from "./verdict.js";

const state = new State();
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
  runs.draw(dirty);
  dirty.clear();
  const shown = JSON.stringify(state.latest);
  if (at("latest-body").dataset.shown !== shown) {
    at("latest-body").dataset.shown = shown;
    at("latest-body").replaceChildren(...report(state.latest));
  }
  at("latest").removeAttribute("aria-busy");
  document.title = state.latest ? `${verdict(state.latest)} · AI Feedback Loop` : "AI Feedback Loop";
}

function say(text) {
  if (text) at("said").textContent = text;
}

// --- hearing ----------------------------------------------------------------------------------

const HEARD = {
  hello(data) {
    // What happened meanwhile to the votes is not told again.
    loader.load();
    if (data.resumed) return;
    state.replace(data);
    changed(...state.runs.keys());
  },
  run(row) {
    const before = state.run(row);
    if (state.runs.has(row.id)) say(news(before, row));
    if (row.decided_at !== before?.decided_at || row.retrain_outcome !== before?.retrain_outcome) loader.load();
    changed(row.id);
  },
  step(row) {
    state.step(row);
    actions.heard(row);
    // What the tiles show, and no run tells of.
    if (["loop.paused", "loop.resumed", "retrain.completed"].includes(row.type)) loader.load();
    changed(row.run);
  },
  progress({ builds }) {
    state.progress(builds);
    if (builds.some(({ running }) => !running)) loader.load();
    changed(...builds.map((build) => build.run));
  },
  votes() {
    loader.load();
  },
  trouble() {
    stand("trouble");
  },
};

function hear(event, data) {
  HEARD[event]?.(data);
  if (event !== "trouble" && event !== "beat") state.asOf = Date.now();
  if (event === "beat" && loader.today !== today()) loader.load();
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

// --- light and dark ---------------------------------------------------------------------------

function themed() {
  at("theme").textContent = word(scheme() === "dark" ? "theme.light" : "theme.dark");
}

at("theme").addEventListener("click", () => {
  const next = scheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("theme", next);
  } catch {
    // then it lasts as long as the page
  }
  const asked = new URLSearchParams(location.search);
  if (asked.has("theme")) {
    asked.set("theme", next);
    history.replaceState(history.state, "", `?${asked}${location.hash}`);
  }
  themed();
  loader.draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  themed();
  loader.draw();
});

// --- beginning --------------------------------------------------------------------------------

for (const place of document.querySelectorAll("[data-text]")) place.textContent = word(place.dataset.text);
for (const place of document.querySelectorAll("[data-label]"))
  place.setAttribute("aria-label", word(place.dataset.label));
for (const link of document.querySelectorAll("#languages a")) {
  if (link.lang === language) link.setAttribute("aria-current", "true");
}
at("latest-body").replaceChildren(skeleton(3));
at("runs-state").replaceChildren(skeleton(3));
at("csv").title = word("csv.about");
at("empty").replaceChildren(...emptiness());
at("more").open = matchMedia("(min-width: 60rem)").matches;
themed();
stand("connecting");

const runs = new Runs(state);
const filters = new Filters(() => {
  loader.load(true);
  backtest.load();
});
const access = new Access(begin);
const actions = new Actions(access);
const backtest = new Backtest();
let arrived = false;
const loader = new Loader(access, filters, (summary, fresh) => {
  actions.update(summary);
  if (fresh) say(word("said.votes", [count(fresh)]));
  if (!arrived) {
    arrived = true;
    backtest.load();
    // What stands above has just grown: go where the address points.
    // A link to certain votes leads to them.
    const [{ type }] = performance.getEntriesByType("navigation");
    const target = location.hash.slice(1) || (oneSided() && type === "navigate" ? "votes" : "");
    if (target) at(target)?.scrollIntoView();
  }
});
const connection = new Connection(hear, stand);

at("csv").addEventListener("click", async () => {
  at("csv").disabled = true;
  at("csv-failed").textContent = "";
  try {
    await download(under("/dashboard/votes.csv"), `votes-${today()}.csv`);
  } catch (error) {
    at("csv-failed").textContent = word("csv.failed", [error.reason]);
  }
  at("csv").disabled = false;
});

/** Ask what may be seen, then begin, or begin again with another token. */
async function begin() {
  try {
    await access.load();
  } catch (error) {
    stand(error.status ? "waiting" : "unreachable", error.status ? error.reason : "");
    setTimeout(begin, 2_000);
    return;
  }
  actions.update();
  const { figures } = access.may;
  document.body.toggleAttribute("data-locked", !figures);
  at("locked").replaceChildren(...(figures ? [] : [access.locked("figures")]));
  at("locked").hidden = figures;
  if (!figures) {
    connection.close();
    stand("locked");
    return;
  }
  loader.anew = true;
  connection.restart();
}

begin();
