// The dead letters: requests that became no Job, with the reason and the begin of the payload.

import { age, api, byId, command, element, setText } from "./dom.js";

export class Letters {
  #list = byId("letters");
  #next = null;
  #isReading = false;

  constructor() {
    byId("reload-letters").addEventListener("click", () => this.reload());
    byId("more-letters").addEventListener("click", () => this.#read());
  }

  async reload() {
    this.#next = null;
    await this.#read(true);
  }

  async #read(isFirst = false) {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      const query = this.#next === null ? "" : `?before=${this.#next}`;
      const { letters, next } = await api(`dead-letters${query}`);
      if (isFirst) this.#list.replaceChildren();
      this.#list.append(...letters.map(draw));
      this.#next = next;
      byId("more-letters").hidden = next === null;
      const count = this.#list.children.length;
      setText(byId("letters-count"), count ? `${count} dead letters, the newest first` : "There are no dead letters.");
    } catch (error) {
      setText(byId("letters-count"), error.message);
    } finally {
      this.#isReading = false;
    }
  }
}

function draw(letter) {
  const facts = [["Request id", letter.requestId], ["Request sequence", letter.requestSeq], ["Submitter", letter.submitter],
    ["Stored", letter.stored], ["Payload", `${letter.payloadSize} bytes${letter.isText ? "" : ", not UTF-8"}`]];
  return element("li", { class: "letter" }, element("details", {},
    element("summary", {},
      element("time", { title: letter.stored }, age(letter.stored)),
      element("b", { class: "reason" }, letter.reason ?? "?"), ` ${letter.template} `,
      letter.name && element("span", { class: "name" }, letter.name),
      element("span", { class: "message" }, letter.message ?? "")),
    element("dl", {}, facts.filter(([, value]) => value)
      .map(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))])),
    element("pre", { class: "payload", tabindex: "0", "aria-label": "Payload" }, letter.payload),
    command(`nats stream get ${letter.stream} --last-for ${letter.subject}`)));
}
