// The ratio over time. The server makes the chart's specification (Slack's picture is the same one);
// Vega draws it here, from our own origin and under a policy that allows neither `eval` nor inline style.

import { element } from "./dom.js";
import { count, day, interval, share, word } from "./strings.js";

let library = null;

function load() {
  library ??= new Promise((resolve, reject) => {
    const script = element("script", { src: "/static/vega.js" });
    script.onload = () => (window.vegaEmbed ? resolve(window.vegaEmbed) : reject(new Error("no vegaEmbed")));
    script.onerror = () => {
      library = null;
      script.remove();
      reject(new Error("not loaded"));
    };
    document.head.append(script);
  });
  return library;
}

export class Chart {
  constructor(place) {
    this.place = place;
    this.shown = "";
    this.drawn = null;
    this.work = Promise.resolve();
  }

  /** Draw a specification after those before it. Throws where it cannot be drawn. */
  draw(spec, theme) {
    const drawn = this.work.then(() => this.#draw(spec, theme));
    this.work = drawn.catch(() => {});
    return drawn;
  }

  async #draw(spec, theme) {
    const text = JSON.stringify(spec);
    if (text === this.shown && this.place.firstElementChild) return;
    const embed = await load();
    // Its hundreds of marks are one picture; who cannot see it has the table.
    const plot = element("div", { class: "vega", "aria-hidden": "true" });
    const fresh = element("div", { class: "vega", role: "img", "aria-label": spec.description, "data-look": theme }, plot);
    fresh.style.position = "absolute"; // measured by its width, seen once it is whole
    fresh.style.visibility = "hidden";
    this.place.append(fresh);
    try {
      const drawn = await embed(plot, spec, { logLevel: 1 }); // errors only: days without votes are no fault
      this.drawn?.finalize();
      this.drawn = drawn;
      this.shown = text;
      fresh.removeAttribute("style");
      this.place.replaceChildren(fresh);
    } catch (error) {
      fresh.remove();
      throw error;
    }
  }
}

/** The same figures as a table: for who cannot see the chart. */
export function table(series, markers) {
  const heads = ["table.day", "tile.likes", "tile.dislikes", "tile.ratio", "table.interval"];
  const marked = new Map(markers.map(({ at, generation }) => [at.slice(0, 10), generation]));
  const rows = series
    .filter(({ likes, dislikes, at }) => likes + dislikes > 0 || marked.has(at))
    .reverse()
    .map(({ at, likes, dislikes, ratio, low, high }) => {
      const news = marked.has(at) ? ` · ${word("build.title", [marked.get(at)])}` : "";
      const cells = [count(likes), count(dislikes), share(ratio), ratio === null ? "–" : interval(low, high)];
      const head = element("th", { scope: "row" }, day(at), news);
      return element("tr", {}, head, cells.map((text) => element("td", {}, text)));
    });
  return element(
    "table",
    {},
    element("caption", { class: "unseen" }, word("chart.title")),
    element("thead", {}, element("tr", {}, heads.map((key) => element("th", { scope: "col" }, word(key))))),
    element("tbody", {}, rows),
  );
}
