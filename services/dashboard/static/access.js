// What the reader may see and do here, and the token that opens more.

import { get, keepToken, token } from "./api.js";
import { at, button, element } from "./dom.js";
import { word } from "./strings.js";

const KINDS = ["figures", "words", "admin"];

export class Access {
  /** `changed()` is called when another token is in use. */
  constructor(changed) {
    this.changed = changed;
    this.may = { figures: false, words: false, admin: false, closed: {} };
    this.dialog = at("token-dialog");
    at("token-open").addEventListener("click", () => this.ask());
    at("token-form").addEventListener("submit", (event) => this.#enter(event));
    at("token-cancel").addEventListener("click", () => this.dialog.close());
    at("token-remove").addEventListener("click", () => this.#use(""));
    this.#seen();
  }

  /** The server has refused what it let through before: ask again, from the beginning. */
  reload() {
    this.changed();
  }

  async load() {
    this.may = await get("/dashboard/access");
    this.#seen();
  }

  ask() {
    at("token-value").value = "";
    at("token-error").textContent = "";
    at("token-remove").hidden = !token();
    this.dialog.showModal();
  }

  /** Why something is not shown, and the way to see it. */
  locked(kind) {
    const variable = this.may.closed?.[kind];
    const text = variable ? word("locked.closed", [variable]) : word(`locked.${kind}`);
    const open = variable ? null : button(word("token.open"), () => this.ask());
    return element("div", { class: "locked" }, element("p", {}, text), open);
  }

  async #enter(event) {
    event.preventDefault();
    const given = at("token-value").value.trim();
    if (!given) return;
    try {
      const [before, after] = await Promise.all([get("/dashboard/access", {}, ""), get("/dashboard/access", {}, given)]);
      if (KINDS.some((kind) => after[kind] && !before[kind])) return this.#use(given);
      const needless = KINDS.every((kind) => before[kind]);
      at("token-error").textContent = word(needless ? "token.needless" : "token.wrong");
    } catch (error) {
      // A header holds no letters beyond Latin-1: such a token is none.
      at("token-error").textContent = error.status ? error.reason : word("token.wrong");
    }
  }

  #use(given) {
    keepToken(given);
    this.dialog.close();
    this.#seen();
    this.changed();
  }

  #seen() {
    at("token-open").textContent = word(token() ? "token.kept" : "token.enter");
  }
}
