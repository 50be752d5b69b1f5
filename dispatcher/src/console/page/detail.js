// One Job: its state, attempts with the ends of their logs, events, and commands to copy.

import { age, api, byId, command, element, quoted, setText, visible } from "./dom.js";

const REFRESH = 400;

export class Detail {
  #store;
  #cancel;
  #panel = byId("detail");
  #row = null;
  #sequence = 0;
  #timer = null;
  #opener = null;
  #number = 0;
  #cancelled = null;
  #button = null;

  /** `cancel` makes the button that cancels a Job, if the console can. */
  constructor(store, cancel) {
    this.#store = store;
    this.#cancel = cancel;
    this.#panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  open(row) {
    this.#opener = document.activeElement;
    this.#row = row;
    this.#panel.hidden = false;
    document.body.classList.add("has-detail");
    this.#draw(null, "reading the events");
    this.#panel.focus();
    this.#read();
  }

  close() {
    this.#row = null;
    this.#panel.hidden = true;
    document.body.classList.remove("has-detail");
    this.#opener?.focus();
  }

  /** Reads the events again, if the Job has new ones. */
  update() {
    if (!this.#row) return;
    const row = this.#store.rows.get(this.#row.id) ?? this.#row;
    if (row.sequence > this.#sequence && !this.#timer) {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.#read();
      }, REFRESH);
    }
  }

  async #read() {
    if (!this.#row) return;
    const row = this.#store.rows.get(this.#row.id) ?? this.#row;
    this.#row = row;
    this.#sequence = row.sequence;
    this.#number += 1;
    const number = this.#number;
    const query = new URLSearchParams({ template: row.template, name: row.name });
    const [history, error] = await api(`history?${query}`).then((found) => [found, ""], (e) => [null, e.message]);
    // Another Job may have been opened meanwhile.
    if (number === this.#number && this.#row?.id === row.id) this.#draw(history, error);
  }

  #draw(history, note) {
    const row = this.#row;
    const opened = new Set([...this.#panel.querySelectorAll("details[open]")].map((found) => found.dataset.key));
    const focused = this.#panel.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const scroll = this.#panel.scrollTop;
    const all = history?.events ?? [];
    const events = all.filter(({ event }) => event?.uid === row.uid);
    const earlier = all.filter(({ event }) => event?.uid !== row.uid);
    const attempts = attemptsOf(events);
    const close = element("button", { type: "button", class: "close", "data-key": "close", "aria-label": "Close",
      onclick: () => this.close() }, "×");
    this.#panel.replaceChildren(...[
      element("div", { class: "title" }, element("h2", {}, row.name), close),
      element("p", { class: "note", role: "status" }, note),
      this.#facts(row, events),
      this.#store.hello.mode === "write" && !isFinal(row.state) && this.#cancelOf(row),
      element("h3", {}, `Attempts (${attempts.length})`),
      attempts.length ? attempts.map((attempt, index) => drawAttempt(attempt, index === attempts.length - 1))
        : element("p", { class: "note" }, "No pod has ended."),
      element("h3", {}, `Events (${events.length})`),
      history?.omitted ? element("p", { class: "note" }, `${history.omitted} older events are not shown.`) : null,
      history && !history.complete ? element("p", { class: "note" }, "NATS was too slow to read every event.") : null,
      element("ol", { class: "events" }, events.map(drawEvent)),
      earlier.length ? element("h3", {}, `Other Jobs of this name (${earlier.length} events)`) : null,
      earlier.length ? element("ol", { class: "events" }, earlier.map(drawEvent)) : null,
      element("h3", {}, "Commands"),
      commands(row, this.#store.hello).map(command),
    ].flat().filter(Boolean));
    for (const found of this.#panel.querySelectorAll("details")) {
      if (opened.has(found.dataset.key)) found.open = true;
    }
    if (focused) this.#panel.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    this.#panel.scrollTop = scroll;
  }

  // One button for each Job: a new event must not forget the first of its two clicks.
  #cancelOf(row) {
    if (this.#cancelled !== row.id) {
      this.#cancelled = row.id;
      this.#button = this.#cancel(row);
    }
    return this.#button;
  }

  #facts(row, events) {
    const outcome = events.map(({ event }) => event.outcome).findLast(Boolean);
    const submitter = events.map(({ event }) => event.submitter).findLast(Boolean);
    const facts = [
      ["State", element("span", { class: "state", "data-state": row.state }, row.state)],
      ["Reason", row.reason],
      ["Message", outcome?.message],
      ["Template", row.template],
      ["Age", age(row.created)],
      ["Created", row.created],
      ["Last event", row.updated],
      ["Request id", row.requestId],
      ["Submitter", submitter && [submitter.account, submitter.user].filter(Boolean).join(" / ")],
      ["Uid", row.uid],
    ];
    return element("dl", {}, facts.filter(([, value]) => value)
      .map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  }
}

export const isFinal = (state) => ["Complete", "Failed", "Deleted", "Cancelled"].includes(state);

/** The attempts of the events, each once: the outcome repeats them. */
function attemptsOf(events) {
  const attempts = new Map();
  for (const { event } of events) {
    for (const attempt of [event.attempt, ...(event.outcome?.attempts ?? [])]) {
      if (attempt) attempts.set(attempt.pod, { ...attempts.get(attempt.pod), ...attempt });
    }
  }
  return [...attempts.values()];
}

function drawAttempt(attempt, isLast) {
  const end = attempt.exitCode !== undefined ? `exit code ${attempt.exitCode}` : "";
  const summary = [attempt.pod, attempt.reason, end].filter(Boolean).join(" · ");
  const facts = [["Node", attempt.node], ["Container", attempt.container], ["Signal", attempt.signal],
    ["Memory limit", attempt.memoryLimit], ["Started", attempt.startedAt], ["Finished", attempt.finishedAt]];
  return element("details", { class: "attempt", open: isLast, "data-key": `attempt-${attempt.pod}` },
    element("summary", {}, summary),
    attempt.message && element("pre", { class: "message" }, attempt.message),
    element("dl", {}, facts.filter(([, value]) => value !== undefined)
      .map(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))])),
    attempt.logTail && element("pre", { class: "log", tabindex: "0", "aria-label": "End of the log" }, attempt.logTail));
}

function drawEvent({ sequence, stored, event }) {
  const parts = event?.outcome ?? event?.stall ?? event?.attempt ?? {};
  const status = event?.status ?? {};
  const counts = ["active", "ready", "succeeded", "failed"].filter((name) => status[name])
    .map((name) => `${name} ${status[name]}`);
  const summary = [parts.result, parts.pod, parts.reason, ...counts].filter(Boolean).join(" · ");
  return element("li", {}, element("details", { "data-key": `event-${sequence}` },
    element("summary", {}, element("time", {}, event?.time ?? stored), element("b", {}, event?.type ?? "?"), ` ${summary}`),
    element("pre", { class: "json" }, JSON.stringify(event, null, 2))));
}

function commands({ template, name }, { namespace, nats }) {
  const jobs = nats.prefix ? `${nats.prefix}.jobs` : "jobs";
  return [
    `nats sub ${quoted(`${jobs}.${template}.status.${name}`)}`,
    `nats stream get ${nats.statusStream} --last-for ${jobs}.${template}.status.${name}`,
    `nats req ${jobs}.${template}.cancel ${quoted(JSON.stringify({ name }))}`,
    `kubectl --namespace ${namespace} get job ${name} --output yaml`,
    `kubectl --namespace ${namespace} describe job ${name}`,
    `kubectl --namespace ${namespace} logs --follow job/${name}`,
  ];
}
