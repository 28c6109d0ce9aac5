// The connection to the stream: it resumes where it was, and says how it stands.

const SILENCE = 40_000; // heartbeats come every 15 s; a laptop that slept holds a dead connection
const HIDDEN = 60_000; // a page nobody looks at lets the database sleep
const AGAIN = 2_000;
const POLL = 10_000;

const EVENTS = ["hello", "run", "step", "progress", "trouble", "beat"];

export class Connection {
  /**
   * `on(event, data)` hears every event; `stand(state, reason)` hears how the connection stands:
   * live, reconnecting, waiting (the server is not ready), unreachable, polling.
   */
  constructor(on, stand) {
    this.on = on;
    this.stand = stand;
    this.cursor = "";
    this.source = null;
    this.timers = {};
    this.hidden = undefined;
    document.addEventListener("visibilitychange", () => this.#lookedAt());
    window.addEventListener("online", () => this.open());
  }

  open() {
    this.close();
    const from = this.cursor ? `?last_event_id=${encodeURIComponent(this.cursor)}` : "";
    const source = new EventSource(`/dashboard/stream${from}`);
    this.source = source;
    this.#heard();
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        this.cursor = event.lastEventId || this.cursor;
        this.#heard();
        if (name === "hello") this.stand("live");
        this.on(name, JSON.parse(event.data));
      });
    }
    source.onerror = () => {
      if (source !== this.source) return;
      if (source.readyState === EventSource.CONNECTING) this.stand("reconnecting");
      else this.#refused();
    };
  }

  close() {
    this.source?.close();
    this.source = null;
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
  }

  #heard() {
    clearTimeout(this.timers.silence);
    this.timers.silence = setTimeout(() => {
      this.stand("reconnecting");
      this.open();
    }, SILENCE);
  }

  /** The server answered, but gave no stream: ask why, and try again. */
  async #refused() {
    this.close();
    let pause = AGAIN;
    try {
      const answer = await fetch("/dashboard/runs", { cache: "no-store" });
      const body = await answer.json();
      if (answer.ok) {
        // There is data, but no stream to be had: then every now and then.
        pause = POLL;
        this.stand("polling");
        this.cursor = body.cursor;
        this.on("hello", { resumed: false, ...body });
      } else {
        this.stand("waiting", body.reason);
      }
    } catch {
      this.stand("unreachable");
    }
    if (!this.source) this.timers.again = setTimeout(() => this.open(), pause);
  }

  #lookedAt() {
    clearTimeout(this.hidden);
    if (document.hidden) this.hidden = setTimeout(() => this.close(), HIDDEN);
    else if (!this.source) this.open();
  }
}
