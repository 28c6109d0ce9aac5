// The connection to the stream: it resumes where it was, and says how it stands. Read by fetch rather
// than by an EventSource, which could not carry the reader's token.

import { get, headers } from "./api.js";

const SILENCE = 40_000; // heartbeats come every 15 s; a laptop that slept holds a dead connection
const HIDDEN = 60_000; // a page nobody looks at lets the database sleep
const AGAIN = 2_000;
const POLL = 10_000;

export class Connection {
  /**
   * `on(event, data)` hears every event; `stand(state, reason)` hears how the connection stands:
   * live, reconnecting, waiting (the server is not ready), unreachable, polling, locked.
   */
  constructor(on, stand) {
    this.on = on;
    this.stand = stand;
    this.cursor = "";
    this.reading = null;
    this.timers = {};
    document.addEventListener("visibilitychange", () => this.#lookedAt());
    window.addEventListener("online", () => this.open());
    window.addEventListener("offline", () => this.#lost());
    window.addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  async open() {
    this.close();
    const reading = (this.reading = new AbortController());
    this.#heard();
    const from = this.cursor ? `?last_event_id=${encodeURIComponent(this.cursor)}` : "";
    let [answered, refused] = [false, false];
    try {
      const options = { signal: reading.signal, headers: headers(), cache: "no-store" };
      const response = await fetch(`/dashboard/stream${from}`, options);
      [answered, refused] = [true, !response.ok];
      if (response.ok) await this.#read(response.body);
    } catch {
      // it broke, or was closed by us
    }
    if (reading !== this.reading) return;
    if (refused) await this.#refused(reading);
    else this.#again(answered ? "reconnecting" : "unreachable", AGAIN);
  }

  close() {
    this.reading?.abort();
    this.reading = null;
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
  }

  /** Forget what was heard: the next thing is a snapshot. */
  restart() {
    this.cursor = "";
    this.open();
  }

  async #read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      const messages = (rest + value).split("\n\n");
      rest = messages.pop();
      this.#heard();
      for (const message of messages) this.#message(message);
    }
  }

  #message(text) {
    const fields = {};
    for (const line of text.split("\n")) {
      const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
      if (field) fields[field] = value;
    }
    if (fields.id) this.cursor = fields.id;
    if (!fields.event) return;
    if (fields.event === "hello") this.stand("live");
    this.on(fields.event, JSON.parse(fields.data));
  }

  #heard() {
    clearTimeout(this.timers.silence);
    this.timers.silence = setTimeout(() => this.#again("reconnecting", 0), SILENCE);
  }

  /** The server answered, but gave no stream: ask why, and try again. */
  async #refused(reading) {
    let [state, pause, reason] = ["unreachable", AGAIN, ""];
    try {
      const body = await get("/dashboard/runs", { signal: reading.signal });
      // There is data, but no stream to be had: then every now and then.
      [state, pause] = ["polling", POLL];
      this.cursor = body.cursor;
      this.on("hello", { resumed: false, ...body });
    } catch (error) {
      if (error.status) [state, reason] = [[401, 403].includes(error.status) ? "locked" : "waiting", error.reason];
    }
    if (reading !== this.reading) return;
    if (state === "locked") this.close();
    this.#again(state, state === "locked" ? null : pause, reason);
  }

  /** The machine has no network: what would come of waiting is known already. */
  #lost() {
    this.close();
    this.stand("unreachable");
  }

  #again(state, pause, reason) {
    clearTimeout(this.timers.silence);
    this.stand(navigator.onLine ? state : "unreachable", reason);
    if (pause !== null) this.timers.again = setTimeout(() => this.open(), pause);
  }

  #lookedAt() {
    clearTimeout(this.timers.hidden);
    if (document.hidden) this.timers.hidden = setTimeout(() => this.close(), HIDDEN);
    else if (!this.reading) this.open();
  }
}
