// What each retrain did to search: before and after, with the interval of the difference.

import { badge, element, time } from "./dom.js";
import { change, count, score, word } from "./strings.js";
import { told } from "./verdict.js";

const cell = (label, ...children) => element("td", { "data-label": label }, children);

function figures({ before, after, delta, low, high, n }) {
  const known = delta !== null && delta !== undefined;
  const sure = known && (low > 0 || high < 0);
  const band = known && low !== null && low !== undefined ? ` [${change(low)}, ${change(high)}]` : "";
  return [
    cell(word("quality.score"), known ? `${score(before)} → ${score(after)}` : "–"),
    cell(
      word("quality.delta"),
      known ? element("span", { class: sure ? (low > 0 ? "better" : "worse") : "" }, change(delta)) : "–",
      element("span", { class: "quiet" }, band),
    ),
    cell(word("quality.n"), count(n)),
  ];
}

function group(row) {
  // An earlier generation was made active; it need not be active now.
  const outcome = word(`outcome.${row.outcome}`, [], word(`step.outcome.${row.outcome}`, [], row.outcome));
  const title = row.generation === null ? "–" : word("build.title", [row.generation]);
  const why = row.reason ? told(row.explained, "span", { class: "hint" }) : null;
  const head = element(
    "th",
    { scope: "rowgroup" },
    element("span", { class: "pair" }, title, badge(row.outcome, outcome)),
    element("span", { class: "hint" }, time(row.at)),
    why,
  );
  const kinds = Object.entries(row.kinds ?? {}).map(([kind, found]) =>
    element("tr", { class: "kind" }, element("th", { scope: "row" }, word(`kind.${kind}`, [], kind)), figures(found)),
  );
  return element("tbody", {}, element("tr", {}, head, figures(row)), kinds);
}

/** The table of retrains, newest first. */
export function quality(place, rows) {
  if (rows.length === 0) return place.replaceChildren(element("p", { class: "quiet" }, word("quality.none")));
  const heads = ["quality.generation", "quality.score", "quality.delta", "quality.n"];
  const table = element(
    "table",
    {},
    element("caption", {}, word("quality.caption", [rows[0].metric.replace("ndcg", "nDCG")])),
    element("thead", {}, element("tr", {}, heads.map((key) => element("th", { scope: "col" }, word(key))))),
    rows.map(group),
  );
  return place.replaceChildren(table);
}
