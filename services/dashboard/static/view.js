// Rows in, elements out. Whatever people wrote becomes a text node, never markup.

import { count, dayAndTime, duration, exactly, percent, threshold, word } from "./strings.js";
import { failures, milestones, pending, standing } from "./timeline.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a text is inserted as text, null is left out. */
export function element(name, attributes = {}, ...children) {
  const made =
    name === "svg" || name === "rect" ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false)
      made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const time = (iso) => element("time", { datetime: iso, title: exactly(iso) }, dayAndTime(iso));

/** A name that somebody gave: its direction stays its own. */
const name = (text) => element("bdi", {}, text);

/** A sentence with a name in it, as nodes. */
function sentence(key, given) {
  const [before, after] = word(key, ["\u0000"]).split("\u0000");
  return [before, name(given), after ?? ""].filter((part) => part !== "");
}

export const verdict = (run) => word(`verdict.${run.verdict}`, [], run.verdict);

function badge(what, size = "") {
  const text = word(`verdict.${what}`, [], word(`step.outcome.${what}`, [], what));
  return element("span", { class: `badge ${what} ${size}` }, text);
}

/** The negative ratio as a bar with a tick at the threshold. */
function bar(dislikes, total) {
  const share = total > 0 ? dislikes / total : 0;
  const label = word("ratio.of", [percent(dislikes, total), percent(threshold, 1)]);
  return element(
    "svg",
    {
      class: share > threshold ? "bar over" : "bar",
      viewBox: "0 0 100 6",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    element("rect", { class: "rail", width: 100, height: 6 }),
    element("rect", { class: "share", width: (share * 100).toFixed(2), height: 6 }),
    element("rect", { class: "limit", x: (threshold * 100 - 0.4).toFixed(2), width: 0.8, height: 6 }),
  );
}

function reason(run) {
  return run.reason ? word(`reason.${run.reason}`, [], run.explanation ?? run.reason) : "";
}

/** Who asked, and for which app. */
function origin(run) {
  const by = run.requested_by
    ? sentence("run.by", run.requested_by)
    : [word("run.by", [word("run.by.unknown")])];
  const parts = [element("span", {}, ...by)];
  if (run.app !== "default") parts.unshift(element("span", {}, ...sentence("run.app", run.app)));
  return element("p", { class: "meta" }, ...parts);
}

// --- the latest report ------------------------------------------------------------------------

function tile(label, value, extra = null, className = "") {
  return element(
    "div",
    { class: `tile ${className}` },
    element("dt", {}, label),
    element("dd", {}, value, extra),
  );
}

/** What the top of the page shows of the latest run that has a verdict. */
export function report(run) {
  if (!run) return element("p", { class: "quiet" }, word("report.none"));
  const shown = reason(run);
  const at = element("p", { class: "meta" }, element("span", {}, ...dated("report.at", run.as_of)));
  at.append(...origin(run).children);
  return element(
    "div",
    { class: "report" },
    element(
      "div",
      { class: "verdict" },
      badge(standing(run), "large"),
      shown ? element("p", { class: "reason" }, shown) : null,
      at,
    ),
    element(
      "dl",
      { class: "tiles" },
      tile(
        word("tile.ratio"),
        percent(run.dislikes, run.total),
        element(
          "span",
          { class: "scale" },
          bar(run.dislikes, run.total),
          element("span", {}, word("tile.threshold", [percent(threshold, 1)])),
        ),
        "ratio",
      ),
      tile(word("tile.total"), count(run.total)),
      tile(`👍 ${word("tile.likes")}`, count(run.likes)),
      tile(`👎 ${word("tile.dislikes")}`, count(run.dislikes)),
    ),
  );
}

function dated(key, iso) {
  const [before, after] = word(key, ["\u0000"]).split("\u0000");
  return [before, time(iso), after ?? ""].filter((part) => part !== "");
}

// --- one run ----------------------------------------------------------------------------------

/** A card that can be brought up to date without losing what is open or focused in it. */
export class RunCard {
  constructor(run) {
    this.heading = element("h3", { id: `run-${run.id}` }, time(run.started_at));
    this.badges = element("p", { class: "badges" });
    this.reason = element("summary", {});
    this.figures = element("p", { lang: "en" });
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
    this.reason.textContent = reason(run);
    this.figures.textContent = run.explanation ?? "";
    this.counts.replaceChildren(...figures(run));
    const parts = [...failures(steps).map(failure), outcome(run), timeline(run, steps, build)];
    this.body.replaceChildren(...parts.filter(Boolean));
  }
}

function badges(run) {
  const shown = [badge(standing(run))];
  if (run.retrain_outcome) shown.push(badge(run.retrain_outcome));
  if (run.state === "failed" && run.verdict) shown.push(badge("failed"));
  return shown;
}

function failure(step) {
  const text = word("gave.up", [step.service, step.type, step.detail || word("gave.up.unknown")]);
  return element("p", { class: "failure" }, text);
}

function figures(run) {
  if (run.total === null) return [];
  const votes = (sign, label, votes) =>
    element(
      "span",
      {},
      element("span", { "aria-label": word(label), role: "img" }, sign),
      ` ${count(votes)}`,
    );
  return [
    bar(run.dislikes, run.total),
    element("strong", {}, percent(run.dislikes, run.total)),
    votes("👍", "tile.likes", run.likes),
    votes("👎", "tile.dislikes", run.dislikes),
  ];
}

/** Why a retrain ended as it did, in the embedder's own words. */
function outcome(run) {
  if (!run.retrain_outcome || !run.retrain_detail) return null;
  const label = word(`step.outcome.${run.retrain_outcome}`, [], run.retrain_outcome);
  return element(
    "p",
    { class: "outcome" },
    `${label}: `,
    element("span", { lang: "en" }, run.retrain_detail),
  );
}

function timeline(run, steps, build) {
  const items = milestones(run, steps).map((each) =>
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
    items.push(
      element("li", { class: "now" }, element("span", { class: "what" }, word(`pending.${waits}`)), progress),
    );
  }
  return element("ol", { class: "steps", "aria-label": word("steps") }, ...items);
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
  const text = word("build.progress", [
    count(build.done),
    count(build.batches),
    percent(build.done, build.batches),
  ]);
  const attributes = { "aria-label": text };
  // Nothing to embed: there is no share to show, it is just under way.
  if (build.batches > 0) Object.assign(attributes, { max: build.batches, value: build.done });
  return element("span", { class: "progress" }, element("progress", attributes), element("span", {}, text));
}

/** A build under way that no run shown here asked for. */
export function buildItem(build) {
  const about = [word("build.title", [build.generation]), word(`build.${build.reason}`, [], build.reason)];
  if (build.app !== "default") about.push(word("run.app", [build.app]));
  about.push(word("build.chunks", [count(build.chunks)]));
  return element(
    "li",
    {},
    element("p", { class: "meta" }, ...about.map((part) => element("span", {}, part))),
    buildProgress(build),
  );
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
