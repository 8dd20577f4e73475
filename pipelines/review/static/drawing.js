// Regions that the reader draws: "exclude" must not count, "score" alone counts. Corners by clicks or an outline by dragging,
// or corners at the crosshair from the keyboard.

import { announce } from "./elements.js";
import { trace } from "./overlays.js";

export const KINDS = { exclude: "Exclude", score: "Score only" };

const DRAG_FROM_PX = 5, POINT_EVERY_PX = 3, CLOSE_PX = 11, SAME_PX = 4, SIMPLER_PX = 0.8;
const LEAST_POINTS = 3;
const INK = { exclude: "#8f1d1d", score: "#0b5d3b" };
const HALO = "rgba(255,255,255,0.92)";
const UNDO_STEPS = 100;

export class Drawing {
  /**
   * @param {object[]} features as they were saved
   * @param {{changed: (features: object[]) => void, modeChanged: (kind: string|null) => void, selected: (place: number) => void}} told
   */
  constructor(features, told) {
    this.features = features;
    this.told = told;
    this.past = [];
    this.kind = null;
    this.points = [];
    this.selection = -1;
    this.pointer = null;
  }

  attach(viewer, overlays) {
    this.viewer = viewer;
    this.overlays = overlays;
    const { osd } = viewer;
    osd.addHandler("canvas-press", (event) => this.#press(event));
    osd.addHandler("canvas-drag", (event) => this.#drag(event));
    osd.addHandler("canvas-release", (event) => this.#release(event));
    osd.addHandler("canvas-click", (event) => this.#click(event));
    osd.addHandler("canvas-double-click", (event) => { if (this.kind) event.preventDefaultAction = true; });
  }

  get drawing() { return this.kind !== null; }

  /** Start to draw a kind, or stop. */
  start(kind) {
    this.kind = this.kind === kind ? null : kind;
    this.points = [];
    this.freehand = false;
    this.select(-1);
    this.told.modeChanged(this.kind);
    if (this.kind) announce(`${KINDS[this.kind]}: click corners or drag an outline. Space sets a corner at the crosshair, Enter closes, Esc cancels.`);
    this.overlays?.repaint();
  }
  cancel() {
    if (this.points.length) {
      this.points = [];
      this.freehand = false;
      announce("Outline dropped");
      this.overlays?.repaint();
      return true;
    }
    if (!this.kind) return false;
    this.start(this.kind);
    announce("Drawing ended");
    return true;
  }

  select(place) {
    if (this.selection === place) return;
    this.selection = place;
    this.told.selected(place);
    this.overlays?.repaint();
  }

  /** A corner where the crosshair is. */
  addCorner() {
    const { viewer } = this;
    this.#add(viewer.toSlide(viewer.width / 2, viewer.height / 2));
    announce(`Corner ${this.points.length}`);
  }

  /** Close the outline and keep it. */
  finish() {
    const simple = simplified(this.points, SIMPLER_PX / this.viewer.scale()).map(([x, y]) => [Math.round(x), Math.round(y)]);
    const ring = simple.filter(([x, y], place) => place === 0 || x !== simple[place - 1][0] || y !== simple[place - 1][1]);
    if (ring.length < LEAST_POINTS || Math.abs(areaOf(ring)) < 1) {
      announce("An outline needs three corners");
      return;
    }
    const kind = this.kind;
    this.points = [];
    this.freehand = false;
    this.kind = null;
    this.told.modeChanged(null);
    this.#change([...this.features, {
      type: "Feature",
      properties: { name: kind },
      geometry: { type: "Polygon", coordinates: [[...ring, ring[0]]] },
    }]);
  }

  remove(place = this.selection) {
    if (place < 0 || place >= this.features.length) return;
    this.select(-1);
    this.#change(this.features.filter((_, other) => other !== place));
  }

  undo() {
    if (this.points.length) {
      this.points.pop();
      this.overlays?.repaint();
      return;
    }
    if (!this.past.length) {
      announce("Nothing to undo");
      return;
    }
    this.select(-1);
    this.features = this.past.pop();
    this.overlays?.repaint();
    this.told.changed(this.features);
  }

  #change(features) {
    this.past.push(this.features);
    if (this.past.length > UNDO_STEPS) this.past.shift();
    this.features = features;
    this.overlays?.repaint();
    this.told.changed(features);
  }

  // --- pointer

  #add({ x, y }) {
    this.points.push([x, y]);
    this.overlays?.repaint();
  }

  #press({ position }) {
    if (!this.kind) return;
    this.pressed = position;
    this.freehand = false;
  }

  #drag(event) {
    if (!this.kind) return;
    event.preventDefaultAction = true;
    if (!this.pressed) return;
    const { x, y } = event.position;
    if (!this.freehand) {
      if (Math.hypot(x - this.pressed.x, y - this.pressed.y) < DRAG_FROM_PX) return;
      this.freehand = true;
      if (!this.points.length) this.#add(this.viewer.toSlide(this.pressed.x, this.pressed.y));
      this.last = this.pressed;
    }
    if (Math.hypot(x - this.last.x, y - this.last.y) < POINT_EVERY_PX) return;
    this.last = { x, y };
    this.#add(this.viewer.toSlide(x, y));
  }

  #release({ position }) {
    if (!this.kind || !this.pressed) return;
    this.pressed = null;
    if (this.freehand) {
      this.freehand = false;
      if (this.points.length >= LEAST_POINTS) this.finish();
      return;
    }
    const { x, y } = position, near = (point, reach) => point && this.#distance(point, x, y) < reach;
    if (this.points.length >= LEAST_POINTS && (near(this.points[0], CLOSE_PX) || near(this.points.at(-1), SAME_PX))) {
      this.finish();
      return;
    }
    if (!near(this.points.at(-1), SAME_PX)) this.#add(this.viewer.toSlide(x, y));
  }

  #distance([px, py], x, y) {
    const { a, b, c, d, e, f } = this.viewer.transform();
    return Math.hypot(a * px + c * py + e - x, b * px + d * py + f - y);
  }

  #click(event) {
    if (this.kind || !event.quick || event.shift) return;
    const { x, y } = this.viewer.toSlide(event.position.x, event.position.y);
    this.select(this.features.findLastIndex(({ geometry }) => contains(geometry.coordinates, x, y)));
  }

  /** Follow the pointer with the line that the next corner would close. */
  point(position) {
    this.pointer = position;
    if (this.points.length) this.overlays?.repaint();
  }

  // --- painting

  paint(context, place) {
    this.features.forEach((feature, number) => {
      const { name } = feature.properties ?? {}, chosen = number === this.selection, kind = name in INK ? name : "exclude";
      context.beginPath();
      for (const ring of feature.geometry.coordinates) trace(context, ring, place);
      if (kind === "exclude") {
        context.fillStyle = "rgba(40,20,20,0.30)";
        context.fill("evenodd");
      }
      this.#stroke(context, kind, chosen);
      if (chosen) for (const [x, y] of feature.geometry.coordinates[0]) handle(context, x, y, place);
    });
    if (this.kind && this.points.length) this.#paintOpen(context, place);
  }

  #stroke(context, kind, strong = false) {
    context.lineJoin = "round";
    context.setLineDash([]);
    context.strokeStyle = HALO;
    context.lineWidth = strong ? 7 : 5;
    context.stroke();
    context.setLineDash(kind === "exclude" ? [9, 5] : []);
    context.strokeStyle = INK[kind];
    context.lineWidth = strong ? 3.5 : 2.5;
    context.stroke();
    context.setLineDash([]);
  }

  #paintOpen(context, place) {
    const { a, b, c, d, e, f } = place, at = ([x, y]) => [a * x + c * y + e, b * x + d * y + f];
    context.beginPath();
    this.points.forEach((point, number) => (number ? context.lineTo(...at(point)) : context.moveTo(...at(point))));
    if (this.pointer && !this.freehand) context.lineTo(this.pointer.x, this.pointer.y);
    this.#stroke(context, this.kind);
    handle(context, ...this.points[0], place);
  }
}

/** Which way a ring turns and how much it holds, in square pixels. */
function areaOf(ring) {
  let twice = 0;
  ring.forEach(([x, y], place) => {
    const [nextX, nextY] = ring[(place + 1) % ring.length];
    twice += x * nextY - nextX * y;
  });
  return twice / 2;
}

/** Middle and size of what a feature covers. */
export function boxOf(feature) {
  const xs = feature.geometry.coordinates[0].map(([x]) => x), ys = feature.geometry.coordinates[0].map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)], [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  return { x: (left + right) / 2, y: (top + bottom) / 2, width: right - left, height: bottom - top };
}

function handle(context, x, y, { a, b, c, d, e, f }) {
  context.beginPath();
  context.arc(a * x + c * y + e, b * x + d * y + f, 4, 0, 2 * Math.PI);
  context.fillStyle = "#fff";
  context.fill();
  context.strokeStyle = "#16212c";
  context.lineWidth = 1.5;
  context.stroke();
}

function contains(rings, x, y) {
  let inside = false;
  for (const ring of rings) {
    for (let at = 0, before = ring.length - 1; at < ring.length; before = at, at += 1) {
      const [ax, ay] = ring[at], [bx, by] = ring[before];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
  }
  return inside;
}

// Without the points that lie nearer than `tolerance` to the line between their neighbours (Douglas and Peucker).
function simplified(points, tolerance) {
  if (points.length < 3) return points;
  const kept = new Uint8Array(points.length), spans = [[0, points.length - 1]];
  kept[0] = kept[points.length - 1] = 1;
  while (spans.length) {
    const [from, to] = spans.pop(), [ax, ay] = points[from], [bx, by] = points[to];
    const length = Math.hypot(bx - ax, by - ay);
    let far = 0, at = -1;
    for (let place = from + 1; place < to; place += 1) {
      const [x, y] = points[place];
      const off = length ? Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length : Math.hypot(x - ax, y - ay);
      if (off > far) [far, at] = [off, place];
    }
    if (far > tolerance) {
      kept[at] = 1;
      spans.push([from, at], [at, to]);
    }
  }
  return points.filter((_, place) => kept[place]);
}
