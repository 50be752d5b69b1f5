// The list of Jobs. Only the visible rows are elements, so that 10,000 Jobs cost as little as 30.

import { age, byId, element, setText } from "./dom.js";

const STATES = ["Pending", "Suspended", "Stalled", "Running", "Complete", "Failed", "Deleted", "Cancelled"];
const MARGIN = 6;

export class Board {
  #store;
  #open;
  #list = byId("board");
  #rows = byId("rows");
  #pool = new Map();
  #shown = [];
  #selected = null;
  #template = "";
  #isQueued = false;

  /** `open` shows a row in detail. */
  constructor(store, open) {
    this.#store = store;
    this.#open = open;
    byId("state").append(...STATES.map((state) => element("option", { value: state }, state)));
    for (const id of ["filter", "state"]) byId(id).addEventListener("input", () => this.#changed());
    this.#list.addEventListener("scroll", () => this.render(), { passive: true });
    this.#list.addEventListener("keydown", (event) => this.#key(event));
    this.#list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-id]");
      if (row) this.#choose(Number(row.dataset.id), true);
    });
    new ResizeObserver(() => this.render()).observe(this.#list);
    setInterval(() => this.render(), 1000);
  }

  get template() {
    return this.#template;
  }

  /** Shows the Jobs of one template, or of all. */
  set template(template) {
    this.#template = template;
    this.#changed();
  }

  #changed() {
    this.#list.scrollTop = 0;
    this.render();
  }

  /** Draws once before the next frame, however often it is called. */
  render() {
    if (this.#isQueued) return;
    this.#isQueued = true;
    requestAnimationFrame(() => {
      this.#isQueued = false;
      this.#draw();
    });
  }

  #filtered() {
    const [text, state] = [byId("filter").value.trim().toLowerCase(), byId("state").value];
    const matches = (row) => (!state || row.state === state)
      && (!this.#template || row.template === this.#template)
      && (!text || row.name.includes(text) || row.requestId.toLowerCase().includes(text));
    const rows = this.#store.sorted();
    return text || state || this.#template ? rows.filter(matches) : rows;
  }

  #draw() {
    this.#shown = this.#filtered();
    const count = this.#shown.length;
    setText(byId("count"), `${count} of ${this.#store.rows.size} Jobs${this.#store.complete ? "" : ", loading"}`);
    const height = this.#rowHeight();
    this.#rows.style.height = `${count * height}px`;
    const first = Math.max(0, Math.floor(this.#list.scrollTop / height) - MARGIN);
    const last = Math.min(count, Math.ceil((this.#list.scrollTop + this.#list.clientHeight) / height) + MARGIN);
    const visible = new Set(this.#shown.slice(first, last).map((row) => row.id));
    for (const [id, made] of this.#pool) {
      if (!visible.has(id)) {
        made.remove();
        this.#pool.delete(id);
      }
    }
    for (let at = first; at < last; at += 1) this.#drawRow(this.#shown[at], at, height);
    const active = this.#pool.get(this.#selected);
    if (active) this.#list.setAttribute("aria-activedescendant", active.id);
    else this.#list.removeAttribute("aria-activedescendant");
  }

  #rowHeight() {
    return parseFloat(getComputedStyle(this.#list).getPropertyValue("--row")) || 36;
  }

  #drawRow(row, at, height) {
    let made = this.#pool.get(row.id);
    if (!made) {
      const cells = ["state", "name", "template", "attempts", "age", "reason"];
      made = element("div", { class: "row", role: "option", id: `row-${row.id}`, "data-id": row.id },
        cells.map((cell) => element("span", { class: cell })));
      this.#pool.set(row.id, made);
      this.#rows.append(made);
    }
    made.style.transform = `translateY(${at * height}px)`;
    made.setAttribute("aria-posinset", at + 1);
    made.setAttribute("aria-setsize", this.#shown.length);
    made.setAttribute("aria-selected", row.id === this.#selected);
    const texts = [row.state, row.name, row.template, row.attempts, age(row.created), row.reason ?? ""];
    texts.forEach((text, index) => setText(made.children[index], text));
    made.firstChild.dataset.state = row.state;
  }

  #choose(id, open) {
    this.#selected = id;
    const at = this.#shown.findIndex((row) => row.id === id);
    const height = this.#rowHeight();
    if (at * height < this.#list.scrollTop) this.#list.scrollTop = at * height;
    const bottom = (at + 1) * height - this.#list.clientHeight;
    if (bottom > this.#list.scrollTop) this.#list.scrollTop = bottom;
    this.render();
    if (open && at >= 0) this.#open(this.#shown[at]);
  }

  #key(event) {
    const at = this.#shown.findIndex((row) => row.id === this.#selected);
    const page = Math.max(1, Math.floor(this.#list.clientHeight / this.#rowHeight()) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page,
      Home: -this.#shown.length, End: this.#shown.length };
    const { key } = event;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (key in moves && this.#shown.length) {
      // Without a selected row, each key selects the first one, but End the last one.
      const wanted = at < 0 && key !== "End" ? 0 : at + moves[key];
      this.#choose(this.#shown[Math.min(this.#shown.length - 1, Math.max(0, wanted))].id, false);
    } else if ((key === "Enter" || key === " ") && at >= 0) {
      this.#open(this.#shown[at]);
    } else {
      return;
    }
    event.preventDefault();
  }
}
