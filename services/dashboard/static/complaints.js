// Why people disliked: causes, groups of complaints, questions that no document answers. Causes and
// groups are filters.

import { element, name } from "./dom.js";
import { count, word } from "./strings.js";

/** A row that says how many, as a bar behind it; pressing it filters. */
function row({ label, votes, most, on, press, below = null, id }) {
  const share = element("progress", { max: Math.max(1, most), value: votes, "aria-hidden": "true" });
  return element(
    "li",
    {},
    element(
      "button",
      { type: "button", class: "bucket", "aria-pressed": String(on), onclick: press, "data-key": id },
      element("span", { class: "label" }, label),
      element("span", { class: "votes" }, count(votes)),
      share,
    ),
    below,
  );
}

/** Fill a list anew without losing the focus that was in it. */
function refill(list, items) {
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...items);
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

export function causes(list, found, chosen, toggle) {
  const most = Math.max(...found.map(({ votes }) => votes), 1);
  const items = found.map(({ cause, votes }) => {
    const label = word(`cause.${cause}`, [], cause);
    const hint = element("p", { class: "hint" }, word(`cause.${cause}.hint`, [], ""));
    const given = { label, votes, most, on: chosen === cause, press: () => toggle(cause), id: cause };
    return row({ ...given, below: hint.textContent ? hint : null });
  });
  refill(list, items.length ? items : [element("li", { class: "quiet" }, word("causes.none"))]);
}

export function groups(list, found, chosen, toggle) {
  const most = Math.max(...found.map(({ votes }) => votes), 1);
  const items = found.map(({ id, label, votes, users, quote }) => {
    const below = [
      quote ? element("blockquote", { class: "quote", dir: "auto" }, quote) : null,
      users ? element("p", { class: "hint" }, word("group.users", [count(users)])) : null,
    ];
    // A group that shares only its reason is called by the reason's code.
    const given = { label: name(word(`code.${label}`, [], label)), votes, most, on: chosen === id, press: () => toggle(id), id };
    return row({ ...given, below });
  });
  refill(list, items.length ? items : [element("li", { class: "quiet" }, word("groups.none"))]);
}

export function gaps(list, found) {
  const items = found.map((question) => element("li", { dir: "auto" }, question));
  list.replaceChildren(...(items.length ? items : [element("li", { class: "quiet" }, word("gaps.none"))]));
}
