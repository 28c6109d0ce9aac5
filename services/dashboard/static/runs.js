// Runs from trigger to Slack, and re-embeddings under way.

import { at, button, element, keep, time } from "./dom.js";
import { count, dayAndTime, duration, percent, threshold, word } from "./strings.js";
import { bar } from "./tiles.js";
import { failures, milestones, pending, standing } from "./timeline.js";
import { origin, told, verdict, verdictBadge, why } from "./verdict.js";

const FIRST = 5;

export class Runs {
  constructor(state) {
    this.state = state;
    this.cards = new Map();
    this.all = false;
    this.more = button("", () => this.#showAll(), { class: "more" });
    at("list").after(this.more);
  }

  /** Show what the state has; `dirty` are the ids of the runs that have changed. */
  draw(dirty) {
    const runs = this.state.newestFirst();
    const shown = this.all ? runs : runs.slice(0, FIRST);
    const fresh = new Set(shown.filter((run) => !this.cards.has(run.id)).map((run) => run.id));
    keep(at("list"), shown, this.cards, (run) => new RunCard(run));
    for (const run of shown) {
      if (!fresh.has(run.id) && !dirty.has(run.id)) continue;
      this.cards.get(run.id).update(run, this.state.stepsOf(run), this.state.buildOf(run));
    }
    this.more.hidden = runs.length <= shown.length;
    this.more.textContent = word("runs.more", [count(runs.length - shown.length)]);
    at("runs").removeAttribute("aria-busy");
    at("runs-state").replaceChildren();
    at("empty").hidden = runs.length > 0;
    const others = this.state.otherBuilds();
    at("builds").replaceChildren(...others.map(buildItem));
    at("building").hidden = others.length === 0;
  }

  #showAll() {
    this.all = true;
    const next = at("list").children.length;
    this.draw(new Set());
    const first = at("list").children[next];
    first?.setAttribute("tabindex", "-1");
    first?.focus();
  }
}

/** A card that can be brought up to date without losing what is open or focused in it. */
class RunCard {
  constructor(run) {
    this.heading = element("h3", { id: `run-${run.id}` }, time(run.started_at));
    this.badges = element("p", { class: "badges" });
    this.reason = element("summary", {});
    this.figures = element("div", {});
    this.details = element("details", {}, this.reason, this.figures);
    this.counts = element("div", { class: "figures" });
    this.body = element("div", { class: "body" });
    this.element = element(
      "li",
      {},
      element(
        "article",
        { class: "run", "aria-labelledby": this.heading.id },
        element("div", { class: "head" }, this.heading, origin(run), this.badges),
        this.details,
        this.counts,
        this.body,
      ),
    );
  }

  update(run, steps, build) {
    this.badges.replaceChildren(...badges(run));
    this.details.hidden = !run.reason;
    this.reason.textContent = why(run);
    this.figures.replaceChildren(told(run.explained, "p"));
    this.counts.replaceChildren(...figures(run));
    const parts = [...failures(steps).map(failure), outcome(run), timeline(run, steps, build)];
    this.body.replaceChildren(...parts.filter(Boolean));
  }
}

function badges(run) {
  const shown = [verdictBadge(standing(run))];
  if (run.retrain_outcome) shown.push(verdictBadge(run.retrain_outcome));
  if (run.state === "failed" && run.verdict) shown.push(verdictBadge("failed"));
  return shown;
}

function failure(step) {
  const text = word("gave.up", [step.service, step.type, step.detail || word("gave.up.unknown")]);
  return element("p", { class: "failure" }, text);
}

function figures(run) {
  if (run.total === null) return [];
  const votes = (sign, label, votes) =>
    element("span", {}, element("span", { "aria-label": word(label), role: "img" }, sign), ` ${count(votes)}`);
  return [
    element("span", { class: "hint" }, word("run.report")),
    bar(run.total ? run.dislikes / run.total : null, threshold),
    element("strong", {}, percent(run.dislikes, run.total)),
    votes("👍", "tile.likes", run.likes),
    votes("👎", "tile.dislikes", run.dislikes),
  ];
}

/** Why a retrain ended as it did. */
function outcome(run) {
  if (!run.retrain_outcome || !run.retrain_detail) return null;
  const label = word(`step.outcome.${run.retrain_outcome}`, [], run.retrain_outcome);
  return element("p", { class: "outcome" }, `${label}: `, told(run.retrain_explained));
}

function timeline(run, steps, build) {
  const told = milestones(run, steps);
  const items = told.map((each) =>
    element(
      "li",
      { class: each.kind === "failure" ? "bad" : null },
      element("span", { class: "what" }, title(each, run)),
      each.after ? element("span", { class: "after" }, `+${duration(each.after)}`) : null,
    ),
  );
  const waits = pending(run);
  if (waits) {
    const progress = waits === "retraining" && build?.running ? buildProgress(build) : null;
    const what = element("span", { class: "what" }, word(`pending.${waits}`));
    items.push(element("li", { class: "now" }, what, progress));
  } else if (told.length > 2) {
    const took = duration(told.at(-1).at - told[0].at);
    items.push(element("li", { class: "whole" }, word("steps.whole", [took])));
  }
  return element("ol", { class: "steps", "aria-label": word("steps") }, items);
}

function title(milestone, run) {
  const { kind, step } = milestone;
  if (kind === "post") {
    const label = word(`post.${step.type}`, [], word("post.other", [step.type]));
    return `${label} · ${destination(step.detail ?? "")}`;
  }
  if (kind === "outcome") return word(`step.outcome.${run.retrain_outcome}`, [], word("step.outcome"));
  if (kind === "failure") return `${word("step.failure")} · ${step.service}`;
  return kind === "other" ? step.type : word(`step.${kind}`);
}

function destination(text) {
  if (text === "terminal") return word("to.terminal");
  const channel = text.startsWith("slack ") ? text.slice("slack ".length) : null;
  if (channel === null) return text;
  return channel === "webhook" ? word("to.webhook") : word("to.slack", [channel]);
}

// --- builds -----------------------------------------------------------------------------------

function buildProgress(build) {
  const figures = [count(build.done), count(build.batches), percent(build.done, build.batches)];
  const text = word("build.progress", figures);
  const attributes = { "aria-label": text };
  // Nothing to embed: there is no share to show, it is just under way.
  if (build.batches > 0) Object.assign(attributes, { max: build.batches, value: build.done });
  return element("span", { class: "progress" }, element("progress", attributes), element("span", {}, text));
}

/** A build under way that no run shown here asked for. */
function buildItem(build) {
  const about = [word("build.title", [build.generation]), word(`build.${build.reason}`, [], build.reason)];
  if (build.app !== "default") about.push(word("run.app", [build.app]));
  about.push(word("build.chunks", [count(build.chunks)]));
  const parts = about.map((part) => element("span", {}, part));
  return element("li", {}, element("p", { class: "meta" }, parts), buildProgress(build));
}

/** What a page without runs says: how to start one. */
export function emptiness() {
  const header =
    document.documentElement.dataset.token === "required" ? ' -H "Authorization: Bearer $TRIGGER_TOKEN"' : "";
  return [
    element("h3", {}, word("empty.title")),
    element("p", {}, word("empty.how")),
    element("pre", {}, element("code", { lang: "en" }, "feedback-loop trigger")),
    element("p", {}, word("empty.or")),
    element("pre", {}, element("code", { lang: "en" }, `curl${header} ${location.origin}/run-feedback-loop`)),
  ];
}

/** What screen readers are told when a run changes, or null. */
export function news(before, run) {
  const at = dayAndTime(run.started_at);
  if (!before) return word("said.started", [at]);
  if (run.state === "failed" && before.state !== "failed") return word("said.failed", [at]);
  if (run.retrain_outcome && !before.retrain_outcome) {
    return word("said.retrained", [word(`step.outcome.${run.retrain_outcome}`, [], run.retrain_outcome)]);
  }
  if (run.verdict && !before.verdict) return word("said.decided", [at, verdict(run)]);
  return null;
}
