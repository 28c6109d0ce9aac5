// The figures of what is filtered, at a glance.

import { badge, element, name, sentence, time } from "./dom.js";
import { count, interval, percent, share, word } from "./strings.js";

/** The worst first. */
const ALERTS = ["ALERT", "NO_DATA", "WATCH", "PAUSED", "UNKNOWN", "OK"];
const LOOKS = { OK: "ok", WATCH: "watch", ALERT: "failed", PAUSED: "paused" };
const MOST = 3;

/** A share as a bar, its interval as a band, with a tick at the threshold. All of 0 to 1. */
export function bar(ratio, threshold, { low = null, high = null } = {}) {
  const rect = (className, x, width) =>
    element("rect", { class: className, x: (x * 100).toFixed(2), width: (width * 100).toFixed(2), height: 6 });
  return element(
    "svg",
    {
      class: ratio > threshold ? "bar over" : "bar",
      viewBox: "0 0 100 6",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": word("ratio.of", [share(ratio), share(threshold)]),
    },
    rect("rail", 0, 1),
    ratio === null ? null : rect("share", 0, ratio),
    ratio === null || low === null ? null : rect("band", low, high - low),
    rect("limit", threshold - 0.004, 0.008),
  );
}

function tile(label, value, below = null, className = "") {
  const small = below === null ? null : element("span", { class: "below" }, below);
  return element("div", { class: `tile ${className}` }, element("dt", {}, label), element("dd", {}, value, small));
}

function alertTile(alerts, app) {
  const found = alerts
    .filter((each) => !app || each.app === app)
    .sort((a, b) => ALERTS.indexOf(a.state) - ALERTS.indexOf(b.state));
  if (found.length === 0) return tile(word("tile.alert"), badge("", word("alert.UNKNOWN")), null, "words");
  const state = (each) => badge(LOOKS[each.state] ?? "", word(`alert.${each.state}`, [], each.state));
  if (found.length === 1) {
    const since = sentence("since", time(found[0].since));
    return tile(word("tile.alert"), state(found[0]), since, "words");
  }
  const rows = found.slice(0, MOST).map((each) => element("span", { class: "pair" }, state(each), name(each.app)));
  const more = found.length > MOST ? word("and.more", [count(found.length - MOST)]) : null;
  return tile(word("tile.alert"), rows, more, "words");
}

/** The tiles of a summary; `app` is the one that is filtered, `oneSided`: a ratio would say nothing. */
export function tiles(summary, app, oneSided) {
  const { tiles: all, threshold } = summary;
  const ratio = oneSided ? null : all.ratio;
  const rated = ratio !== null;
  const band = rated ? { low: all.low, high: all.high } : {};
  const none = word(oneSided ? "tile.onesided" : "tile.none");
  const scale = element(
    "span",
    { class: "scale" },
    bar(ratio, threshold, band),
    element(
      "span",
      {},
      rated ? word("tile.interval", [interval(all.low, all.high)]) : none,
      " · ",
      word("tile.threshold", [share(threshold)]),
    ),
  );
  const active = summary.generations.find(({ id }) => id === all.generation);
  const several = all.generation === null && !app && summary.apps.length > 1;
  return [
    tile(word("tile.ratio"), [element("span", {}, share(ratio)), scale], null, "ratio"),
    tile(word("tile.rated"), count(all.rated), word("tile.answers", [count(all.answers)])),
    tile(`👍 ${word("tile.likes")}`, count(all.likes), percent(all.likes, all.rated)),
    tile(`👎 ${word("tile.dislikes")}`, count(all.dislikes), percent(all.dislikes, all.rated)),
    tile(word("tile.response"), share(all.response_rate), word("tile.response.of")),
    tile(
      word("tile.generation"),
      all.generation === null ? "–" : count(all.generation),
      active?.promoted_at ? sentence("since", time(active.promoted_at)) : word(several ? "tile.generation.several" : "tile.generation.none"),
    ),
    alertTile(summary.alerts, app),
  ];
}
