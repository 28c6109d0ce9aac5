// What a person may ask of the loop. Each action is confirmed, then sent; what comes of it shows live.

import { get, post } from "./api.js";
import { at, button, element } from "./dom.js";
import { current } from "./filters.js";
import { count, dayAndTime, word } from "./strings.js";

const COMMANDS = ["run", "reembed", "rollback", "pause", "resume", "webhook"];
const HOURS = [1, 24, 168];
const RECENT = 20;
/** What tells that a command is carried out, and how that is worded. */
const ENDS = {
  "feedback.evaluate": ["emitted", "action.run.seen"],
  "retrain.completed": ["emitted", "action.ended"],
  "loop.paused": ["processed", "action.pause.seen"],
  "loop.resumed": ["processed", "action.resume.seen"],
  "webhook.test": ["processed", "action.webhook.seen"],
};

export class Actions {
  constructor(access) {
    Object.assign(this, { access, summary: null, command: null, awaited: null, recent: [], asked: null });
    this.dialog = at("action-dialog");
    this.buttons = COMMANDS.map((command) =>
      button(word(`action.${command}`), () => this.#ask(command), {
        "data-command": command,
        "aria-describedby": "actions-hint",
        disabled: true,
        hidden: command === "webhook",
      }),
    );
    at("actions").replaceChildren(...this.buttons);
    at("action-form").addEventListener("submit", (event) => this.#send(event));
    at("action-cancel").addEventListener("click", () => this.dialog.close());
  }

  /** Show who may press what. */
  update(summary = this.summary) {
    this.summary = summary;
    const { may } = this.access;
    for (const each of this.buttons) {
      const nowhere = each.dataset.command === "rollback" && summary && this.#earlier().length === 0;
      each.disabled = !may.admin || Boolean(nowhere);
      each.title = nowhere ? word("action.nowhere") : "";
    }
    if (may.admin !== this.asked) this.#webhook();
    this.asked = may.admin;
    if (!may.admin) at("actions-hint").replaceChildren(this.access.locked("admin"));
  }

  /** Its button is there only where a webhook is; one that is switched off is said. Returns how it does. */
  async #webhook() {
    const admin = this.access.may.admin;
    const { webhook } = admin ? await get("/dashboard/webhook").catch(() => ({})) : {};
    this.buttons.at(-1).hidden = !webhook;
    const { host, disabled_at: off, disabled_reason: reason } = webhook ?? {};
    const said = off ? [element("p", { class: "hint" }, word("action.webhook.off", [host, reason]))] : [];
    if (admin) at("actions-hint").replaceChildren(...said);
    return webhook;
  }

  /** Something has happened: say so, if it is what was asked for. */
  heard(step) {
    const [what, key] = ENDS[step.type] ?? [];
    if (step.what !== what) return;
    if (step.run !== this.awaited?.id) {
      this.recent = [...this.recent.slice(-RECENT), step];
      return;
    }
    const { command } = this.awaited;
    this.awaited = null;
    if (step.type === "webhook.test") {
      this.#tested();
      return;
    }
    const text = word(`action.${command}.${step.detail}`, [], word(key));
    const link = element("a", { href: `#run-${step.run}` }, word("action.seen"));
    at("actions-done").replaceChildren(text, ...(step.type === "feedback.evaluate" ? [" ", link] : []));
  }

  async #tested() {
    const webhook = await this.#webhook();
    const failure = webhook?.test_failure;
    const said = failure ? word("action.webhook.failed", [failure]) : word("action.webhook.seen");
    at("actions-done").textContent = said;
  }

  /** Generations that a rollback may go back to, newest first. */
  #earlier() {
    const active = this.summary?.tiles.generation;
    return (this.summary?.generations ?? []).filter(({ id, promoted_at: at }) => at && id !== active);
  }

  #ask(command) {
    this.command = command;
    at("action-title").textContent = word(`action.${command}`);
    at("action-about").textContent = word(`action.${command}.about`);
    at("action-error").textContent = "";
    at("action-send").textContent = word(`action.${command}.send`);
    at("action-send").disabled = false;
    at("action-fields").replaceChildren(...this.#fields(command));
    this.dialog.showModal();
  }

  #fields(command) {
    if (command === "webhook") return [element("input", { type: "hidden", name: "app", value: "default" })];
    const apps = this.summary?.apps ?? [];
    const app = current().get("app") ?? (apps.includes("default") || !apps.length ? "default" : apps[0]);
    const fields = apps.length > 1 ? [select("app", "filter.app", apps.map((each) => [each, each]), app)] : [];
    if (fields.length === 0) fields.push(element("input", { type: "hidden", name: "app", value: app }));
    if (command === "rollback") {
      const found = this.#earlier().map(({ id, promoted_at: at }) => [id, `${count(id)} · ${dayAndTime(at)}`]);
      fields.push(select("generation", "action.generation", [["", word("action.previous")], ...found], ""));
    }
    if (command === "pause") fields.push(hours());
    if (["rollback", "pause", "resume"].includes(command)) {
      const input = element("input", { name: "why", maxlength: 200, autocomplete: "off" });
      fields.push(element("label", { class: "field" }, element("span", {}, word("action.why")), input));
    }
    return fields;
  }

  async #send(event) {
    event.preventDefault();
    const fields = new FormData(at("action-form"));
    const body = { command: this.command, app: fields.get("app") };
    if (fields.get("generation")) body.generation = Number(fields.get("generation"));
    if (fields.get("hours")) body.hours = Number(fields.get("hours"));
    if (fields.get("why")) body.why = fields.get("why");
    at("action-send").disabled = true;
    try {
      const { event: id } = await post("/dashboard/commands", body);
      this.dialog.close();
      this.awaited = { id, command: body.command };
      at("actions-done").textContent = word(`action.${this.command}.done`);
      // The stream may have been faster than the answer.
      for (const step of this.recent) this.heard(step);
    } catch (error) {
      at("action-error").textContent = error.status ? error.reason : word("notice.unreachable");
      at("action-send").disabled = false;
    }
  }
}

function select(name, label, found, chosen) {
  const options = found.map(([value, text]) => element("option", { value, selected: value === chosen }, text));
  return element("label", { class: "field" }, element("span", {}, word(label)), element("select", { name }, options));
}

function hours() {
  const choices = HOURS.map((value, index) =>
    element(
      "label",
      {},
      element("input", { type: "radio", name: "hours", value, checked: index === 1 }),
      word(`action.hours.${value}`),
    ),
  );
  return element("fieldset", { class: "choices" }, element("legend", {}, word("action.for")), choices);
}
