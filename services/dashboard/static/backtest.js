// What another threshold would have done, on the votes of the past.

import { get } from "./api.js";
import { at, element } from "./dom.js";
import { current } from "./filters.js";
import { count, day, share, threshold, today, word } from "./strings.js";

const DAYS = 90;
const PAUSE = 200; // milliseconds without a movement before the server is asked
const POLICIES = ["wilson", "ratio"];
const LISTED = 4;

export class Backtest {
  constructor() {
    this.slider = at("backtest-threshold");
    this.slider.value = Math.round(threshold * 100);
    this.timer = null;
    this.asking = null;
    this.slider.addEventListener("input", () => this.#moved());
    this.#label();
  }

  #label() {
    const text = share(this.slider.value / 100);
    at("backtest-value").textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
  }

  #moved() {
    this.#label();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), PAUSE);
  }

  async load() {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const asked = new URLSearchParams({ threshold: this.slider.value / 100, days: DAYS });
    if (current().has("app")) asked.set("app", current().get("app"));
    try {
      const found = await get(`/dashboard/backtest?${asked}`, { signal: asking.signal });
      at("backtest-result").replaceChildren(...POLICIES.map((policy) => result(policy, found[policy], found.days)));
    } catch (error) {
      if (error.name === "AbortError") return;
      at("backtest-result").replaceChildren(element("p", { class: "quiet" }, error.status ? error.reason : word("failed")));
    }
  }
}

function result(policy, { retrains, days }, span) {
  const listed = days.slice(-LISTED).map(day).join(", ");
  const more = days.length > LISTED ? ` ${word("and.more", [count(days.length - LISTED)])}` : "";
  return element(
    "div",
    { class: "policy" },
    element("p", {}, element("strong", {}, word(`policy.${policy}`)), " ", word("backtest.times", [count(retrains)])),
    strip(days, span),
    element("p", { class: "hint" }, days.length ? listed + more : word("backtest.never")),
  );
}

/** The days as marks on a line that ends today. */
function strip(days, span) {
  const end = Date.parse(today());
  const marks = days.map((iso) => {
    const x = span - 1 - (end - Date.parse(iso)) / 86_400_000;
    return element("rect", { class: "limit", x: Math.max(0, x), width: 0.8, height: 6 });
  });
  const attributes = { class: "bar", viewBox: `0 0 ${span} 6`, preserveAspectRatio: "none", "aria-hidden": "true" };
  return element("svg", attributes, element("rect", { class: "rail", width: span, height: 6 }), marks);
}
