// The actions: a form from the template's JSON Schema that submits a request, and cancel.
// The token stays in the memory of the page.

import { api, byId, element, setText } from "./dom.js";

let token = tokenOfAddress();

/** Takes the token from the part of the address after `#`, which no server gets. */
function tokenOfAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
  if (found) history.replaceState(null, "", location.pathname);
  return found;
}

function post(action, template, body, headers = {}) {
  return api(`${action}?${new URLSearchParams({ template })}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}`, ...headers },
    body: JSON.stringify(body),
  });
}

/** A field for the token, until there is one. */
function tokenField() {
  const input = element("input", { type: "password", class: "token", autocomplete: "off", required: true });
  input.value = token;
  input.addEventListener("input", () => { token = input.value.trim(); });
  return element("label", {}, "Token of the console", input);
}

/** A button that cancels a Job after a second click. */
export function cancelButton(row) {
  const result = element("span", { class: "result", role: "status" });
  const button = element("button", { type: "button", class: "cancel", "data-key": "cancel" }, "Cancel Job");
  let isSure = false;
  button.addEventListener("click", async () => {
    if (!isSure) {
      isSure = true;
      setText(button, "Really cancel?");
      return;
    }
    button.disabled = true;
    const answer = await post("cancel", row.template, { name: row.name }).catch((error) => error);
    setText(result, answer instanceof Error ? answer.message : answer.result);
    button.disabled = false;
    isSure = false;
    setText(button, "Cancel Job");
  });
  return element("div", { class: "actions" }, !token && tokenField(), button, result);
}

/** The form. */
export class Submit {
  #store;
  #open;
  #section = byId("view-submit");
  #template = "";

  constructor(store, open) {
    this.#store = store;
    this.#open = open;
  }

  async show(template) {
    const names = this.#store.templates.map((found) => found.name);
    this.#template = names.includes(template) ? template : names[0] ?? "";
    const select = element("select", { name: "template" },
      names.map((name) => element("option", { value: name, selected: name === this.#template }, name)));
    select.addEventListener("change", () => this.show(select.value));
    const result = element("div", { class: "result", role: "status" });
    const form = element("form", { novalidate: true }, tokenField(), element("label", {}, "Template", select));
    this.#section.replaceChildren(element("h2", {}, "Submit a request"), form, result);
    try {
      const schema = await api(`schema?${new URLSearchParams({ template: this.#template })}`);
      const fields = fieldsOf(schema);
      const button = element("button", { type: "submit" }, "Submit");
      form.append(...fields.map((field) => field.label), button);
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.#submit(fields, button, result);
      });
    } catch (error) {
      setText(result, error.message);
    }
  }

  async #submit(fields, button, result) {
    button.disabled = true;
    // A repeated click after a time-out must not request a second Job.
    button.dataset.id ||= `console-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    const body = {};
    for (const { name, read } of fields) {
      const value = read();
      if (value !== undefined) body[name] = value;
    }
    const template = this.#template;
    try {
      const answer = await post("submit", template, body, { "Request-Id": button.dataset.id });
      delete button.dataset.id;
      result.replaceChildren(element("p", {}, `Stored: Job ${answer.name}, request ${answer.requestId}`),
        cancelRequest(template, answer.requestId),
        element("button", { type: "button", onclick: () => this.#open(answer) }, "Show the Job"));
    } catch (error) {
      // Only without an answer may the request be stored.
      if (error.status && error.status < 500) delete button.dataset.id;
      setText(result, error.message);
    } finally {
      button.disabled = false;
    }
  }
}

function cancelRequest(template, requestId) {
  const button = element("button", { type: "button", class: "cancel" }, "Cancel this request");
  button.addEventListener("click", async () => {
    const answer = await post("cancel", template, { requestId }).catch((error) => error);
    setText(button, answer instanceof Error ? answer.message : `Cancelled: ${answer.result}`);
  });
  return button;
}

/** One field for each property of the schema. An empty field is no parameter. */
function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  const entries = Object.entries(schema.properties ?? {});
  const isReserved = (name) => ["name", "generateName"].includes(name);
  entries.sort(([a], [b]) => isReserved(a) - isReserved(b) || required.has(b) - required.has(a));
  return entries.map(([name, property]) => field(name, property, required.has(name)));
}

function field(name, property, isRequired) {
  const attributes = { name: `parameter-${name}`, autocomplete: "off", required: isRequired };
  const { input, read } = inputOf(property ?? {}, attributes);
  if (property?.default !== undefined) input.placeholder = JSON.stringify(property.default);
  const label = element("label", {}, isRequired ? `${name} (required)` : name, input,
    property?.description && element("small", {}, property.description));
  return { name, label, read };
}

function inputOf(property, attributes) {
  const isNumber = ["integer", "number"].includes(property.type);
  if (Array.isArray(property.enum) || property.type === "boolean") {
    const values = property.enum ?? [true, false];
    const input = element("select", attributes, element("option", { value: "" }, ""),
      values.map((value, index) => element("option", { value: index }, String(value))));
    return { input, read: () => input.value === "" ? undefined : values[Number(input.value)] };
  }
  if (property.type === "string" || isNumber) {
    const input = element("input", { ...attributes, type: "text", inputmode: isNumber ? "decimal" : undefined });
    const parse = (text) => isNumber && text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
    return { input, read: () => input.value === "" ? undefined : parse(input.value) };
  }
  // Any other type is JSON; what is no JSON is a string.
  const input = element("textarea", { ...attributes, rows: 2 });
  const parse = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  };
  return { input, read: () => input.value === "" ? undefined : parse(input.value) };
}
