// Connects the parts of the page.

import { Submit, cancelButton } from "./actions.js";
import { Board } from "./board.js";
import { Detail } from "./detail.js";
import { byId, element, setText } from "./dom.js";
import { Letters } from "./letters.js";
import { Store } from "./store.js";

const store = new Store();
const detail = new Detail(store, cancelButton);
const board = new Board(store, (row) => detail.open(row));
const letters = new Letters();
const submit = new Submit(store, ({ template, name }) => {
  show("jobs");
  byId("filter").value = name;
  board.template = "";
  const row = store.sorted().find((found) => found.template === template && found.name === name);
  if (row) detail.open(row);
});

function show(view) {
  for (const button of document.querySelectorAll("[data-view]")) {
    const isShown = button.dataset.view === view;
    button.setAttribute("aria-pressed", isShown);
    byId(`view-${button.dataset.view}`).hidden = !isShown;
  }
  if (view !== "jobs") detail.close();
  if (view === "letters") letters.reload();
  if (view === "submit") submit.show(board.template);
  if (view === "jobs") board.render();
}

function drawTemplates() {
  const shown = byId("templates");
  const names = store.templates.map((template) => template.name);
  if (shown.dataset.names !== names.join(" ")) {
    shown.dataset.names = names.join(" ");
    shown.replaceChildren(...names.map((name) => element("button", { type: "button", class: "template", "data-name": name,
      onclick: () => { board.template = board.template === name ? "" : name; drawTemplates(); } },
      element("b", {}, name), ["ready", "queued", "active"].map((part) => element("span", { class: part })))));
  }
  for (const template of store.templates) {
    const card = [...shown.children].find((found) => found.dataset.name === template.name);
    card.setAttribute("aria-pressed", board.template === template.name);
    const [, ready, queued, active] = card.children;
    setText(ready, template.problem ? `not ready: ${template.problem}` : "ready");
    ready.dataset.ready = !template.problem;
    setText(queued, `${template.queued ?? "?"} queued, ${template.inProgress ?? "?"} in progress`);
    setText(active, `${template.active ?? "?"} active${template.limit ? ` of ${template.limit}` : ""}`);
  }
}

function draw() {
  setText(byId("connection"), store.connection);
  byId("connection").dataset.state = store.connection;
  const { problem } = store;
  byId("problem").hidden = !problem;
  setText(byId("problem"), problem ? `Jobs may be out of date: ${problem}` : "");
  drawTemplates();
  board.render();
  detail.update();
}

store.addEventListener("hello", () => {
  setText(byId("about"), `namespace ${store.hello.namespace}, version ${store.hello.version}`);
  document.querySelector("[data-view=submit]").hidden = store.hello.mode !== "write";
});
store.addEventListener("change", draw);
for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => show(button.dataset.view));
}
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    show("jobs");
    byId("filter").focus();
  } else if (event.key === "Escape" && event.target === byId("filter")) {
    byId("board").focus();
  }
});
byId("filter").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "Enter") {
    event.preventDefault();
    byId("board").focus();
  }
});
store.connect();
