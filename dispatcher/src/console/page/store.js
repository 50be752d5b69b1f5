// The board as the page knows it, kept current by server-sent events.

const RECONNECT = [1000, 2000, 5000, 10000, 30000];

export class Store extends EventTarget {
  rows = new Map();
  templates = [];
  hello = { mode: "read", namespace: "", version: "", nats: { prefix: null, statusStream: "JOB_STATUS" } };
  problem = null;
  connection = "connecting";
  complete = false;
  #order = [];
  #isSorted = true;
  #tries = 0;

  /** The rows, the newest first. */
  sorted() {
    if (!this.#isSorted) {
      this.#order = [...this.rows.values()].sort((a, b) => b.id - a.id);
      this.#isSorted = true;
    }
    return this.#order;
  }

  connect() {
    // A browser opens a connection that the server has refused not again: this does.
    const source = new EventSource("api/live");
    const on = (name, handle) => source.addEventListener(name, (event) => {
      handle(JSON.parse(event.data));
      this.dispatchEvent(new Event("change"));
    });
    on("hello", (hello) => {
      this.#tries = 0;
      this.#connectionIs("live");
      this.hello = hello;
      this.dispatchEvent(new Event("hello"));
    });
    on("reset", () => this.#reset());
    on("rows", (changes) => this.#apply(changes));
    on("complete", () => { this.complete = true; });
    on("templates", (templates) => { this.templates = templates; });
    on("source", ({ problem }) => { this.problem = problem; });
    source.addEventListener("error", () => {
      source.close();
      this.#connectionIs("reconnecting");
      this.dispatchEvent(new Event("change"));
      const pause = RECONNECT[Math.min(this.#tries, RECONNECT.length - 1)];
      this.#tries += 1;
      setTimeout(() => this.connect(), pause * (0.75 + Math.random() / 2));
    });
  }

  #connectionIs(state) {
    this.connection = state;
  }

  #reset() {
    this.rows.clear();
    this.#isSorted = false;
    this.complete = false;
  }

  #apply({ rows, removed }) {
    for (const row of rows) {
      const shown = this.rows.get(row.id);
      if (!shown || shown.sequence < row.sequence) this.rows.set(row.id, row);
    }
    for (const id of removed) this.rows.delete(id);
    this.#isSorted = false;
  }
}
