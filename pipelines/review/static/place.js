// The place of the view in the address: a link to it, Back and reload all lead there.

import { settled } from "./elements.js";

const SETTLED_MS = 250;
const SMALLEST_MOVE = 1e-3;

const numbers = (given, names) => Object.fromEntries(names.map((name) => [name, given.has(name) ? Number(given.get(name)) : NaN]));

export function readPlace() {
  const given = new URLSearchParams(location.hash.slice(1));
  return { ...numbers(given, ["x", "y", "w", "r"]), beside: given.get("with") ?? "" };
}

function written({ x, y, w, r }, beside) {
  const given = new URLSearchParams({ x: Math.round(x), y: Math.round(y), w: Math.round(w) });
  if (Math.round(r)) given.set("r", Math.round(r));
  if (beside) given.set("with", beside);
  return `#${given}`;
}

export class Place {
  /** @param {SlideViewer} viewer @param {{beside: () => string, arrived: (place: object) => void}} given */
  constructor(viewer, { beside, arrived }) {
    this.viewer = viewer;
    this.beside = beside;
    const root = document.documentElement.dataset;
    const note = settled(() => {
      this.note();
      root.view = "still";
    }, SETTLED_MS);
    viewer.onMove(() => {
      root.view = "moving";
      note();
    });
    window.addEventListener("popstate", () => {
      const place = readPlace();
      this.viewer.go(place);
      arrived(place);
    });
  }

  /** Let the address say where the view is, without a step of Back. */
  note() {
    const hash = written(this.viewer.place(), this.beside());
    if (hash !== location.hash) history.replaceState(history.state, "", hash);
  }

  /** Go somewhere, so that Back leads to where the view was. */
  jump(place) {
    const before = this.viewer.place();
    this.note();
    this.viewer.go(place);
    const after = this.viewer.place();
    const moved = Math.hypot(after.x - before.x, after.y - before.y) > SMALLEST_MOVE * before.w || Math.abs(after.w / before.w - 1) > SMALLEST_MOVE;
    if (moved) history.pushState(null, "", written(after, this.beside()));
  }
}
