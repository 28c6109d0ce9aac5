// The latest votes with what was asked, answered and cited. The list lives: a new vote comes on top, and
// what is open stays open.

import { badge, element, keep, name, prose, time } from "./dom.js";
import { count, word } from "./strings.js";

export class Votes {
  /** `list` is the list's element. */
  constructor(list) {
    this.list = list;
    this.cards = new Map();
    this.rows = [];
    this.next = null;
  }

  /** Take the first page; older rows that were loaded stay. Returns how many votes are new. */
  refresh({ votes, next }, anew) {
    const known = new Set(this.rows.map(({ id }) => id));
    const ids = new Set(votes.map(({ id }) => id));
    const last = votes.at(-1)?.id;
    const seam = this.rows.findIndex(({ id }) => id === last);
    const older = anew || seam < 0 ? [] : this.rows.slice(seam + 1).filter(({ id }) => !ids.has(id));
    if (older.length === 0) this.next = next;
    this.rows = [...votes, ...older];
    this.#draw();
    return anew ? 0 : votes.filter(({ id }) => !known.has(id)).length;
  }

  /** Take a further page. */
  append({ votes, next }) {
    const known = new Set(this.rows.map(({ id }) => id));
    this.next = next;
    this.rows.push(...votes.filter(({ id }) => !known.has(id)));
    this.#draw();
  }

  #draw() {
    keep(this.list, this.rows, this.cards, () => new VoteCard());
    for (const row of this.rows) this.cards.get(String(row.id)).update(row);
  }
}

class VoteCard {
  constructor() {
    this.shown = "";
    this.body = element("article", { class: "vote" });
    this.element = element("li", {}, this.body);
  }

  update(vote) {
    const text = JSON.stringify(vote);
    if (text === this.shown) return;
    this.shown = text;
    const open = this.body.querySelector("details")?.open ?? false;
    const [details] = evidence(vote);
    if (details) details.open = open;
    this.body.replaceChildren(...[head(vote), ...question(vote), ...comment(vote), details].filter(Boolean));
  }
}

const thumb = (liked) =>
  element("span", { role: "img", "aria-label": word(liked ? "tile.likes" : "tile.dislikes") }, liked ? "👍" : "👎");

function head(vote) {
  const about = [];
  if (vote.reason) about.push(badge("", word(`code.${vote.reason}`, [], vote.reason)));
  if (vote.cause && vote.cause !== "unknown") about.push(badge("plain", word(`cause.${vote.cause}`, [], vote.cause)));
  const meta = [time(vote.at)];
  if (vote.app !== "default") meta.push(name(vote.app));
  if (vote.generation !== null) meta.push(word("build.title", [vote.generation]));
  if (vote.user) meta.push(name(vote.user));
  return element(
    "div",
    { class: "head" },
    thumb(vote.value === 1),
    about.length ? element("span", { class: "badges" }, about) : null,
    element("p", { class: "meta" }, meta.map((each) => element("span", {}, each))),
  );
}

function question(vote) {
  if (!vote.question) return [element("h3", { class: "quiet" }, word("vote.no_question", [vote.conversation]))];
  return [element("h3", { dir: "auto" }, vote.question)];
}

const comment = (vote) => (vote.comment ? [element("blockquote", {}, prose(vote.comment, "said"))] : []);

/** The answer and what it rests on, to be opened. */
function evidence(vote) {
  const chunks = vote.chunks ?? [];
  if (!vote.answer && chunks.length === 0) return [];
  const label = chunks.length ? word("vote.evidence", [count(chunks.length)]) : word("vote.answer");
  return [
    element(
      "details",
      { class: "evidence" },
      element("summary", {}, label),
      vote.answer ? [element("h4", {}, word("vote.answer")), ...prose(vote.answer, "answer")] : null,
      chunks.length
        ? [element("h4", {}, word("vote.chunks")), element("ol", { class: "chunks" }, chunks.map(chunk))]
        : null,
    ),
  ];
}

function chunk({ source, heading, text, vote, rank }) {
  const title = [source, heading].filter(Boolean).map((each) => element("span", {}, name(each)));
  const rated = vote === null || vote === undefined ? null : thumb(vote === 1);
  const ranked = rank === null || rank === undefined ? null : element("span", {}, word("vote.rank", [count(rank)]));
  return element("li", {}, element("p", { class: "meta" }, title, ranked, rated), prose(text ?? "", "text"));
}
