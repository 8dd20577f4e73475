// What is known of one patch: shown where the pointer is, or where the crosshair is for those without one.

import { chip, colourOf } from "./chip.js";
import { by, element } from "./elements.js";
import { className, share } from "./format.js";

const REASONS = {
  unreadable: "It cannot be decoded.",
  noise: "It is noise rather than tissue.",
  out_of_focus: "It is out of focus.",
  covered: "It is covered, as by ink.",
  colour: "Its colour is not that of hematoxylin and DAB.",
  not_counted: "It was not counted.",
};

export class Reading {
  constructor(viewer, overlays) {
    this.viewer = viewer;
    this.overlays = overlays;
    this.patch = -1;
    this.crosshair = false;
    this.pointer = null;
    overlays.addPainter((context, place) => this.#mark(context, place));
    viewer.onMove(() => this.update());
  }

  /** The pointer is here, CSS pixels of the view; null where it has left. */
  point(position) {
    this.pointer = position;
    this.update();
  }

  toggleCrosshair(on = !this.crosshair) {
    this.crosshair = on;
    by("crosshair").hidden = !on;
    this.update();
  }

  update() {
    const { grid } = this.overlays, { viewer } = this;
    const at = this.crosshair ? { x: viewer.width / 2, y: viewer.height / 2 } : this.pointer;
    let patch = -1;
    if (grid && at) {
      const { x, y } = viewer.toSlide(at.x, at.y);
      patch = grid.at(x, y);
    }
    if (patch === this.patch) return;
    this.patch = patch;
    this.overlays.repaint();
    const card = by("reading");
    card.hidden = patch < 0;
    if (patch >= 0) card.replaceChildren(...this.#describe(grid.of(patch)));
  }

  /** The patch under the crosshair or the pointer, in words. */
  inWords() {
    const { grid } = this.overlays;
    if (this.patch < 0 || !grid) return "No patch here";
    const known = grid.of(this.patch);
    if (known.refused) return `Refused patch. ${REASONS[known.reason] ?? known.reason}`;
    return `${className(known.label)}: ${grid.classes.map((name, at) => `${className(name)} ${share(known.probabilities[at])}`).join(", ")}; tissue ${share(known.tissue)}`;
  }

  #describe(known) {
    const { slide } = this.viewer, { classes } = this.overlays.grid;
    const head = element("div", { class: "reading-head" },
      known.refused ? chip("refused", "", "small") : chip(className(known.label), colourOf(slide, known.label), "small"),
      element("span", { class: "soft small" }, `tissue ${share(known.tissue)}`),
      element("span", { class: "soft small place" }, `${known.x}, ${known.y}`));
    if (known.refused) return [head, element("p", { class: "small" }, REASONS[known.reason] ?? (known.reason || "It was not scored."))];
    return [head, element("ul", { class: "bars tight" }, classes.map((name, at) => element("li", { class: "bar-row" },
      element("span", { class: "bar-name" }, className(name)),
      element("span", { class: "track" }, element("span", { class: "fill-bar", style: { width: `${100 * known.probabilities[at]}%`, background: colourOf(slide, name) } })),
      element("span", { class: "bar-value" }, share(known.probabilities[at], 1)))))];
  }

  #mark(context, { a, b, c, d, e, f }) {
    const { grid } = this.overlays;
    if (this.patch < 0 || !grid) return;
    const x = grid.xy[2 * this.patch], y = grid.xy[2 * this.patch + 1];
    const corners = [[x, y], [x + grid.side, y], [x + grid.side, y + grid.side], [x, y + grid.side]];
    context.beginPath();
    corners.forEach(([px, py], place) => context[place ? "lineTo" : "moveTo"](a * px + c * py + e, b * px + d * py + f));
    context.closePath();
    for (const [colour, width] of [["#fff", 4], ["#101820", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }
}
