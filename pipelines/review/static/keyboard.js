// Every key of a page: one table that is obeyed, and shown on `?`.

import { announce, by, element, memory } from "./elements.js";

const TYPING = "input:not([type=checkbox], [type=radio], [type=range], [type=button]), textarea, select, [contenteditable]";
const ARROWS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]);
const SHOWN = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Escape: "Esc", Delete: "Del", Backspace: "⌫",
};

/**
 * Obey a table of keys.
 * @param {{group: string, keys: string[], words: string, run: (event: KeyboardEvent) => void, when?: () => boolean,
 *   release?: () => void}[]} table
 *   A key is `KeyboardEvent.key`; before it stands "Shift+" or "Ctrl+" (which is Command on a Mac as well). "Shift+1" is the
 *   key 1 of the top row whatever the layout makes of it. Two lines may share a key if `when` tells them apart.
 */
export function obey(table) {
  const lines = table.filter((line) => line.run);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    const name = nameOf(event), line = lines.find((each) => each.keys.includes(name) && (each.when?.() ?? true));
    if (!line || !meant(event, line)) return;
    event.preventDefault();
    line.run(event);
  });
  document.addEventListener("keyup", (event) => {
    for (const line of lines) if (line.release && line.keys.includes(event.key)) line.release();
  });
  window.addEventListener("blur", () => { for (const line of lines) line.release?.(); });
  makeHelp(table);
}

function nameOf(event) {
  if (event.altKey) return "";
  if (event.ctrlKey || event.metaKey) return `Ctrl+${event.key.toLowerCase()}`;
  const digit = /^Digit(\d)$/.exec(event.code);
  if (event.shiftKey && digit) return `Shift+${digit[1]}`;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // A sign such as "?" or "+" needs Shift on one keyboard and none on another.
  const letter = key.length > 1 || /\p{L}/u.test(key);
  return event.shiftKey && letter ? `Shift+${key}` : key;
}

// Whether a key is for the page: not while somebody types, and not where a control wants it for itself.
function meant(event, line) {
  const at = event.target instanceof Element ? event.target : document.body, { key } = event;
  if (document.querySelector("dialog[open]")) return false;
  if (key === "Escape") return true;
  if (at.closest(TYPING)) return false;
  if (at.matches("[type=range], [type=radio]") && ARROWS.has(key)) return false;
  if ((key === " " || key === "Enter") && at.closest("button, a, summary, [type=checkbox], [type=radio]")) return Boolean(line.evenOnButtons);
  return line.always || memory.read("keys", true);
}

/** How a key is written. */
export function written(name) {
  if (name === "+") return name;
  return name.split("+").map((part) => SHOWN[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");
}

function makeHelp(table) {
  const groups = new Map();
  for (const line of table) if (line.words) groups.set(line.group, [...(groups.get(line.group) ?? []), line]);
  by("keys").replaceChildren(...[...groups].map(([name, lines]) =>
    element("section", {}, element("h3", {}, name), element("dl", {}, lines.map((line) => [
      element("dt", {}, (line.shown ?? line.keys).flatMap((key, place) => [place ? " " : "", element("kbd", {}, written(key))])),
      element("dd", {}, line.words),
    ]).flat()))));
  const off = by("keys-on");
  off.checked = memory.read("keys", true);
  off.addEventListener("change", () => {
    memory.keep("keys", off.checked);
    announce(off.checked ? "Keys are on" : "Keys are off; ? still opens this list");
  });
  by("help").addEventListener("click", (event) => { if (event.target === by("help")) by("help").close(); });
  by("help-close").addEventListener("click", () => by("help").close());
  by("help-open").addEventListener("click", () => showHelp());
}

export function showHelp() {
  by("help").showModal();
}
