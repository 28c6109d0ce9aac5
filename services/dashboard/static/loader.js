// Asks for what is filtered and shows it: one reading at a time, again at once where the filter changed
// or something happened meanwhile. What is shown stays until there is something newer.

import { get } from "./api.js";
import { at, button, element, scheme, skeleton } from "./dom.js";
import { Chart, table } from "./chart.js";
import { causes, gaps, groups } from "./complaints.js";
import { current, oneSided, range, under } from "./filters.js";
import { quality } from "./quality.js";
import { language, today, word } from "./strings.js";
import { tiles } from "./tiles.js";
import { Votes } from "./votes.js";

const PAGE = 10;
const PAUSE = 300; // milliseconds between two readings, however much happens
const AGAIN = 5_000;
const BUSY = ["figures", "why", "votes", "quality"];

const rest = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** The list is about complaints, unless somebody asks for the likes. */
const listed = (more = {}) => under("/dashboard/votes", { rated: current().get("rated") ?? "down", limit: PAGE, ...more });

export class Loader {
  /** `shown(summary, news)` is called when there are new figures; `news` counts votes not seen before. */
  constructor(access, filters, shown) {
    Object.assign(this, { access, filters, shown, wanted: false, anew: true, loop: null, going: null, timer: null });
    this.today = today();
    this.votes = new Votes(at("votes-list"));
    this.chart = new Chart(at("chart"));
    at("votes-more").addEventListener("click", () => this.#more());
    at("tiles").replaceChildren(...Array.from({ length: 7 }, () => element("div", { class: "tile" }, skeleton(2))));
    for (const id of ["chart", "causes", "groups", "gaps", "quality-table"]) at(id).replaceChildren(skeleton(3));
    at("votes-state").replaceChildren(skeleton(4));
  }

  /** Read soon. `anew`: something else is asked for, so what is under way is of no use. */
  load(anew = false) {
    if (anew) {
      this.anew = true;
      this.going?.abort();
      for (const id of BUSY) at(id).setAttribute("aria-busy", "true");
    }
    this.wanted = true;
    this.loop ??= this.#loop();
  }

  async #loop() {
    while (this.wanted) {
      this.wanted = false;
      await this.#read();
      if (!this.wanted) await rest(PAUSE);
    }
    this.loop = null;
  }

  async #read() {
    clearTimeout(this.timer);
    const { signal } = (this.going = new AbortController());
    const { anew } = this;
    const { figures, words } = this.access.may;
    if (!figures) return;
    const personal = (path) => (words ? get(path, { signal }) : null);
    try {
      const asked = [get(under("/dashboard/summary"), { signal }), personal(under("/dashboard/groups")), personal(listed())];
      const [summary, found, votes] = await Promise.all(asked);
      this.anew = false;
      this.today = today();
      this.#show(summary, found);
      const news = this.#list(votes, anew);
      this.shown(summary, news);
      this.draw(signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#failed(error);
    }
  }

  #show(summary, found) {
    const chosen = current();
    this.filters.update(summary);
    at("range").textContent = range(summary);
    at("tiles").replaceChildren(...tiles(summary, chosen.get("app"), oneSided()));
    at("chart-table").replaceChildren(table(summary.series, summary.markers));
    causes(at("causes"), summary.causes, chosen.get("cause"), (cause) => this.filters.toggle("cause", cause));
    quality(at("quality-table"), summary.quality);
    at("gaps-card").hidden = !found;
    if (found) {
      this.filters.name(found.groups);
      groups(at("groups"), found.groups, chosen.get("group"), (id) => this.filters.toggle("group", id));
      gaps(at("gaps"), found.gaps);
    } else {
      at("groups").replaceChildren(element("li", {}, this.access.locked("words")));
    }
    for (const id of BUSY) at(id).removeAttribute("aria-busy");
    at("figures-failed").hidden = true;
  }

  #list(votes, anew) {
    at("csv").hidden = !votes;
    at("votes-title").textContent = word(current().get("rated") === "up" ? "votes.up" : "votes");
    if (!votes) {
      at("votes-state").replaceChildren(element("div", { class: "card" }, this.access.locked("words")));
      at("votes-list").replaceChildren();
      return 0;
    }
    const news = this.votes.refresh(votes, anew);
    const empty = this.votes.rows.length === 0;
    at("votes-state").replaceChildren(...(empty ? [this.#nothing()] : []));
    at("votes-more").hidden = this.votes.next === null;
    return news;
  }

  #nothing() {
    const filtered = current().toString() !== "";
    const clear = filtered ? button(word("clear"), () => this.filters.clear()) : null;
    return element("div", { class: "card nothing" }, element("p", {}, word(filtered ? "votes.none.filtered" : "votes.none")), clear);
  }

  async #more() {
    at("votes-more").disabled = true;
    try {
      this.votes.append(await get(listed({ before: this.votes.next })));
      at("votes-more").hidden = this.votes.next === null;
    } catch {
      // the button stays: it may be pressed again
    }
    at("votes-more").disabled = false;
  }

  /** Draw the chart anew, in the colours of the page. */
  async draw(signal) {
    if (!this.access.may.figures) return;
    if (oneSided()) {
      this.#noChart("tile.onesided");
      return;
    }
    const look = { lang: language, theme: scheme() };
    try {
      await this.chart.draw(await get(under("/dashboard/trend.json", look), { signal }), look.theme);
      at("chart-failed").hidden = true;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#noChart("chart.failed");
      at("chart-data").open = true;
    }
  }

  #noChart(why) {
    at("chart-failed").textContent = word(why);
    at("chart-failed").hidden = false;
    at("chart").replaceChildren();
  }

  #failed(error) {
    if ([401, 403].includes(error.status)) {
      this.timer = setTimeout(() => this.access.reload(), 1_000);
      return;
    }
    const refused = error.status === 422 || error.status === 400;
    const text = refused ? word("filter.refused", [error.field, error.reason]) : word("failed");
    const way = refused
      ? button(word("clear"), () => this.filters.clear())
      : button(word("again"), () => this.load());
    at("figures-failed").replaceChildren(element("span", {}, text), " ", way);
    at("figures-failed").hidden = false;
    for (const id of BUSY) at(id).removeAttribute("aria-busy");
    if (!refused) this.timer = setTimeout(() => this.load(), AGAIN);
  }
}
