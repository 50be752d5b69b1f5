// Builds elements. Every text goes into a text node, so that no text becomes markup.

// Control characters, and characters that change the direction or the lines of a text.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The text with a visible escape for each character that a reader cannot see. */
export function visible(text) {
  const escape = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return String(text).replace(/\r\n/g, "\n").replace(HIDDEN, escape);
}

/** Whether the text has no hidden character. */
export const isPlain = (text) => visible(text) === text;

/** An element with attributes, event listeners (`onclick`), and children: nodes or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false)
    .map((child) => child instanceof Node ? child : visible(child)));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Shows one text in an element, if it differs. */
export function setText(target, text) {
  const shown = visible(text);
  if (target.textContent !== shown) target.textContent = shown;
}

/** The seconds since a time (RFC 3339) in at most two units. */
export function age(time, now = Date.now()) {
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  if (Number.isNaN(seconds)) return "";
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0s";
  const [[unit, size], next] = [units[first], units[first + 1]];
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return `${Math.floor(seconds / size)}${unit}${rest ? `${rest}${next[0]}` : ""}`;
}

/** Reads JSON from the API; an error has the message of the answer. */
export async function api(path, options = {}) {
  const response = await fetch(`api/${path}`, { signal: AbortSignal.timeout(20000), ...options });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(`${body.error ?? response.status}: ${body.message ?? response.statusText}`);
    error.status = response.status;
    throw error;
  }
  return body;
}

/** A command, and a button that copies it. */
export function command(text) {
  const code = element("code", {}, text);
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await copy(text, code);
    setText(button, copied ? "Copied" : "Press Ctrl-C");
    setTimeout(() => setText(button, "Copy"), 2000);
  });
  return element("div", { class: "command" }, code, button);
}

async function copy(text, code) {
  // Pages over plain HTTP have no clipboard, except those of this machine.
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}

/** A text as one word of a shell. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
