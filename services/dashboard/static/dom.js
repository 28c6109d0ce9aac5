// Elements out of names and texts. Whatever people wrote becomes a text node, never markup.

import { dayAndTime, exactly, word } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "title"]);
const LONG = 280;

const dark = matchMedia("(prefers-color-scheme: dark)");

export const at = (id) => document.getElementById(id);

/** `light` or `dark`: as chosen, else as the system has it. */
export const scheme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");

/** An element with attributes and children; a text is inserted as text, null is left out. */
export function element(name, attributes = {}, ...children) {
  const made = DRAWN.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made[key] = value;
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const button = (label, onclick, attributes = {}) =>
  element("button", { type: "button", onclick, ...attributes }, label);

export const time = (iso) => element("time", { datetime: iso, title: exactly(iso) }, dayAndTime(iso));

/** A name that somebody gave: its direction stays its own. */
export const name = (text) => element("bdi", {}, text);

/** A sentence with a node in the place of `{0}`, as nodes. */
export function sentence(key, node) {
  const [before, after] = word(key, ["\u0000"]).split("\u0000");
  return [before, node, after ?? ""].filter((part) => part !== "");
}

/** A label and what it stands for, as a badge of a colour. */
export const badge = (kind, text, size = "") => element("span", { class: `badge ${kind} ${size}` }, text);

/** What people wrote, as they wrote it; a long text is cut by the style until somebody asks for all. */
export function prose(text, className) {
  const written = element("p", { class: className, dir: "auto" }, text);
  if (text.length <= LONG && text.split("\n").length < 7) return [written];
  written.classList.add("cut");
  const more = button(word("show.all"), () => {
    const open = written.classList.toggle("cut") === false;
    more.setAttribute("aria-expanded", String(open));
    more.textContent = word(open ? "show.less" : "show.all");
  });
  more.className = "quiet-button";
  more.setAttribute("aria-expanded", "false");
  return [written, more];
}

/** Bars that breathe where something is to come. */
export function skeleton(lines) {
  const bars = Array.from({ length: lines }, () => element("span", { class: "bone" }));
  return element("div", { class: "skeleton" }, element("span", { class: "unseen" }, word("loading")), bars);
}

/** Bring a list up to date by its rows' ids, keeping what is open or focused in them. */
export function keep(list, rows, cards, make) {
  const wanted = new Set(rows.map((row) => String(row.id)));
  for (const [id, card] of cards) {
    if (!wanted.has(id)) {
      card.element.remove();
      cards.delete(id);
    }
  }
  rows.forEach((row, index) => {
    const id = String(row.id);
    if (!cards.has(id)) cards.set(id, make(row));
    const there = list.children[index];
    const { element } = cards.get(id);
    if (there !== element) list.insertBefore(element, there ?? null);
  });
}
