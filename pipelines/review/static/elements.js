// Making elements, and the one line that tells everybody what happened.

const toast = { timer: 0 };
const TOAST_MS = 4500;

export const by = (id) => document.getElementById(id);

/**
 * An element with its properties and children. `class`, `data`, `style` and `aria`, `role`, `for` are attributes or
 * maps of them; all else is set on the object, so text can never become markup.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key === "class") made.className = value;
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key === "style") for (const [rule, set] of Object.entries(value)) made.style.setProperty(rule, set);
    else if (key === "aria") for (const [part, set] of Object.entries(value)) made.setAttribute(`aria-${part}`, set);
    else if (key === "role" || key === "for" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Give an element these children and no others; what is null is left out. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** Say what happened, to the eye and to a screen reader; `quietly` only to the latter. */
export function announce(text, { quietly = false } = {}) {
  const line = by("announcement");
  // The same sentence twice is spoken twice only if the text changes.
  line.textContent = line.textContent === text ? `${text}\u00a0` : text;
  line.classList.toggle("shown", !quietly);
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => line.classList.remove("shown"), TOAST_MS);
}

/** Say what went wrong; it stays until it is closed. */
export function complain(error) {
  by("trouble-text").textContent = error instanceof Error ? error.message : String(error);
  by("trouble").hidden = false;
}

/** Let the bar of `complain` be closed. */
export function listenForTrouble() {
  by("trouble-close").addEventListener("click", () => { by("trouble").hidden = true; });
  window.addEventListener("unhandledrejection", (event) => {
    complain(event.reason);
    event.preventDefault();
  });
}

/** Wait until calls have stopped for some time, then call once. */
export function settled(action, milliseconds) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), milliseconds);
  };
}

/** What this browser remembers; a browser that remembers nothing is no error. */
export const memory = {
  read(key, otherwise = null) {
    try {
      const kept = localStorage.getItem(`wsi-her2.${key}`);
      return kept === null ? otherwise : JSON.parse(kept);
    } catch {
      return otherwise;
    }
  },
  keep(key, value) {
    try {
      localStorage.setItem(`wsi-her2.${key}`, JSON.stringify(value));
    } catch { /* Full, or switched off. */ }
  },
};

/** The order of the worklist as it was last shown in this tab. */
export const worklistOrder = {
  read() {
    try {
      const kept = JSON.parse(sessionStorage.getItem("wsi-her2.order") ?? "null");
      return kept && Array.isArray(kept.slides) ? kept : null;
    } catch {
      return null;
    }
  },
  keep(slides, address) {
    try {
      sessionStorage.setItem("wsi-her2.order", JSON.stringify({ slides, address }));
    } catch { /* Full, or switched off. */ }
  },
};
