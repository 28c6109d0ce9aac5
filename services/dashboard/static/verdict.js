// The latest verdict, and why: in one sentence with its figures.

import { badge, element, name, sentence, time } from "./dom.js";
import { count, interval, language, percent, share, threshold, word } from "./strings.js";
import { standing } from "./timeline.js";

export const verdict = (run) => word(`verdict.${run.verdict}`, [], run.verdict);

export function verdictBadge(what, size = "") {
  return badge(what, word(`verdict.${what}`, [], word(`step.outcome.${what}`, [], what)), size);
}

const WINDOW = /^([1-9]\d*)([mhd])$/;

function period(window) {
  const [, size, unit] = WINDOW.exec(window) ?? [];
  return size ? word(`window.${unit}`, [count(Number(size))]) : word("window.report");
}

/** Why a run ended as it did, with the figures it rests on; empty where it was not judged. */
export function why(run) {
  if (!run.reason) return "";
  const says = word(`reason.${run.reason}`, [share(threshold)], run.explanation ?? run.reason);
  const found = (run.because ?? []).find(({ code }) => code === "votes")?.figures;
  if (found) {
    const { window, dislikes, total, low, high } = found;
    const figures = [period(window), count(total), count(dislikes), percent(dislikes, total), interval(low, high)];
    return `${word("why.figures", figures)} ${says}`;
  }
  if (!run.total || !WORDED.has(run.reason)) return says;
  return `${word("why.report", [count(run.total), count(run.dislikes), percent(run.dislikes, run.total)])} ${says}`;
}

const WORDED = new Set(["paused", "within_threshold", "uncertain", "cooling_down", "breaker_open"]);

/** A sentence that the server has words for, in the page's language where it has; else marked as English. */
export function told(sentences, tag = "span", attributes = {}) {
  const own = sentences?.[language];
  return element(tag, { ...attributes, lang: own ? null : "en" }, own ?? sentences?.en ?? "");
}

/** Who asked, and for which app. */
export function origin(run) {
  const by = sentence("run.by", name(run.requested_by || word("run.by.unknown")));
  const parts = [element("span", {}, by)];
  if (run.app !== "default") parts.unshift(element("span", {}, sentence("run.app", name(run.app))));
  return element("p", { class: "meta" }, parts);
}

/** What the top of the page shows of the latest run that has a verdict. */
export function report(run) {
  if (!run) return [element("p", { class: "quiet" }, word("report.none"))];
  const shown = why(run);
  const dated = element("p", { class: "meta" }, element("span", {}, sentence("report.at", time(run.as_of))));
  dated.append(...origin(run).children);
  const exact = run.explanation ? told(run.explained, "p") : null;
  return [
    verdictBadge(standing(run), "large"),
    shown ? element("p", { class: "reason" }, shown) : null,
    exact && element("details", { class: "exact" }, element("summary", {}, word("why.exact")), exact),
    dated,
  ].filter(Boolean);
}
