// What is shown: the filter lives in the page's address, so a link opens exactly these rows.

import { at, button, element, name } from "./dom.js";
import { count, day, today, word } from "./strings.js";

const SINGLE = ["app", "from", "to", "rated", "comment", "document", "generation", "cause", "group"];
const FILTERS = [...SINGLE, "reason"];
const DATES = ["from", "to"];
const PRESETS = [7, 28, 90];
const STANDARD = 28;

/** The part of the address that is a filter, in an order of its own: equal filters are equal texts. */
export function current(search = location.search) {
  const given = new URLSearchParams(search);
  const kept = new URLSearchParams();
  for (const key of SINGLE) if (given.get(key)) kept.set(key, given.get(key));
  for (const code of new Set(given.getAll("reason"))) if (code) kept.append("reason", code);
  return kept;
}

/** `path` with the filter and more parameters. */
export function under(path, more = {}) {
  const asked = current();
  for (const [key, value] of Object.entries(more)) if (value !== null) asked.set(key, value);
  const query = asked.toString();
  return query ? `${path}?${query}` : path;
}

/** Whether only one kind of vote can pass, so that a negative ratio says nothing. */
export const oneSided = () => ["rated", "cause", "group", "reason"].some((key) => current().has(key));

function daysBefore(iso, days) {
  const found = new Date(`${iso}T00:00:00Z`);
  found.setUTCDate(found.getUTCDate() - days);
  return found.toISOString().slice(0, 10);
}

export class Filters {
  /** `changed()` is called when the reader has changed the filter, in whatever way. */
  constructor(changed) {
    this.changed = changed;
    this.shown = "";
    this.groups = new Map();
    this.form = at("filters");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", () => this.#read());
    at("clear").addEventListener("click", () => this.clear());
    const menu = this.form.querySelector(".menu");
    document.addEventListener("click", (event) => menu.contains(event.target) || (menu.open = false));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      menu.open = false;
      at("reasons-title").focus();
    });
    window.addEventListener("popstate", () => this.#moved());
    at("presets").replaceChildren(
      ...PRESETS.map((days) =>
        button(word("preset", [days]), () => this.preset(days), { "data-days": days, "aria-pressed": "false" }),
      ),
    );
    this.#seen();
  }

  /** Change some of the filter; null takes a part away. */
  set(changes) {
    const next = current();
    for (const [key, value] of Object.entries(changes)) {
      next.delete(key);
      for (const each of [value].flat()) if (each) next.append(key, each);
    }
    this.#go(next);
  }

  /** Set `key` to `value`, or take it away where it is that already. */
  toggle(key, value) {
    this.set({ [key]: current().get(key) === value ? null : value });
  }

  preset(days) {
    this.set({ from: days === STANDARD ? null : daysBefore(today(), days - 1), to: null });
  }

  clear() {
    this.#go(new URLSearchParams());
    this.form.querySelector("button")?.focus();
  }

  /** Offer what there is, and show what is asked for. */
  update(summary) {
    const asked = current();
    const options = {
      app: summary.apps.map((app) => [app, app]),
      document: summary.documents.map(({ source, votes }) => [source, `${source} (${count(votes)})`]),
      generation: summary.generations.map(({ id }) => [String(id), String(id)]),
      cause: summary.causes.map(({ cause }) => [cause, word(`cause.${cause}`, [], cause)]),
    };
    for (const [key, found] of Object.entries(options)) this.#offer(this.form.elements[key], found, asked.get(key));
    at("field-app").hidden = summary.apps.length < 2 && !asked.has("app");
    this.#reasons(summary.reasons, asked.getAll("reason"));
    for (const key of DATES) {
      const field = this.form.elements[key];
      field.dataset.offered = summary[key];
      if (field !== document.activeElement) field.value = asked.get(key) ?? summary[key];
    }
    this.form.elements.rated.value = asked.get("rated") ?? "";
    this.form.elements.comment.checked = asked.get("comment") === "1";
    this.#seen();
  }

  /** How complaint groups are called, for the chip of the one that is chosen. */
  name(groups) {
    this.groups = new Map(groups.map(({ id, label }) => [id, label]));
    this.#seen();
  }

  #offer(select, found, asked) {
    const offered = asked && !found.some(([value]) => value === asked) ? [...found, [asked, asked]] : found;
    const text = JSON.stringify(offered);
    if (select.dataset.offered !== text) {
      select.dataset.offered = text;
      const all = element("option", { value: "" }, word("any"));
      select.replaceChildren(all, ...offered.map(([value, label]) => element("option", { value }, label)));
    }
    select.value = asked ?? "";
  }

  #reasons(found, asked) {
    const codes = [...new Set([...found.map(({ code }) => code), ...asked])];
    const votes = new Map(found.map((each) => [each.code, each.votes]));
    const text = JSON.stringify([codes, ...votes.values()]);
    const list = at("reasons");
    if (list.dataset.offered !== text) {
      list.dataset.offered = text;
      const boxes = codes.map((code) => {
        const label = `${word(`code.${code}`, [], code)} (${count(votes.get(code) ?? 0)})`;
        return element("label", {}, element("input", { type: "checkbox", name: "reason", value: code }), label);
      });
      const focused = document.activeElement?.name === "reason" ? document.activeElement.value : null;
      list.replaceChildren(...(boxes.length ? boxes : [element("p", { class: "quiet" }, word("none"))]));
      if (focused) list.querySelector(`[value="${CSS.escape(focused)}"]`)?.focus();
    }
    for (const box of list.querySelectorAll("input")) box.checked = asked.includes(box.value);
    at("reasons-title").textContent = word("filter.reason") + (asked.length ? ` · ${count(asked.length)}` : "");
  }

  #read() {
    const fields = new FormData(this.form);
    const asked = current();
    const next = { reason: fields.getAll("reason"), comment: fields.get("comment") };
    for (const key of ["app", "rated", "document", "generation", "cause"]) next[key] = fields.get(key);
    // A day that is shown but was never asked for goes on with the calendar.
    for (const key of DATES) {
      const field = this.form.elements[key];
      next[key] = field.value === field.dataset.offered && !asked.has(key) ? null : field.value;
    }
    this.set(next);
  }

  #go(next) {
    const own = new URLSearchParams(location.search);
    for (const key of FILTERS) own.delete(key);
    const query = new URLSearchParams([...next, ...own]).toString();
    history.replaceState(history.state, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
    this.#moved();
  }

  #moved() {
    const before = this.shown;
    this.#seen();
    if (this.shown !== before) this.changed();
  }

  /** What of the page tells the filter without the server: chips, presets, the languages' links. */
  #seen() {
    const asked = current();
    this.shown = asked.toString();
    const chips = [...asked].filter(([key]) => !DATES.includes(key)).map((each) => this.#chip(...each));
    at("chips").replaceChildren(...chips);
    at("chips").hidden = chips.length === 0;
    at("votes-filter").textContent = chips.map((chip) => chip.firstChild.textContent).join(" · ");
    at("clear").hidden = this.shown === "";
    at("more-count").textContent = chips.length ? ` · ${count(chips.length)}` : "";
    for (const preset of at("presets").children) {
      const days = Number(preset.dataset.days);
      const from = asked.get("from") ?? daysBefore(today(), STANDARD - 1);
      const on = !asked.has("to") && from === daysBefore(today(), days - 1);
      preset.setAttribute("aria-pressed", String(on));
    }
    for (const link of document.querySelectorAll("#languages a")) {
      const query = new URLSearchParams(location.search);
      query.set("lang", link.lang);
      link.href = `?${query}`;
    }
  }

  #chip(key, value) {
    const said = {
      rated: () => word(`rated.${value}`, [], value),
      comment: () => word("filter.comment"),
      reason: () => word(`code.${value}`, [], value),
      cause: () => word(`cause.${value}`, [], value),
      group: () => word(`code.${this.groups.get(value)}`, [], this.groups.get(value) ?? value),
      generation: () => word("build.title", [value]),
    };
    const text = said[key]?.() ?? value;
    const rest = current().getAll(key).filter((each) => each !== value);
    const label = word("chip.remove", [`${word(`filter.${key}`)}: ${text}`]);
    const remove = () => {
      this.set({ [key]: rest });
      (at("chips").querySelector("button") ?? at("presets").querySelector("button")).focus();
    };
    const cross = element("span", { "aria-hidden": "true" }, " ×");
    return button([name(text), cross], remove, { class: "chip", "aria-label": label, title: label });
  }
}

/** The range in words, as headings have it. */
export const range = ({ from, to }) => `${day(from)} – ${day(to)}`;
