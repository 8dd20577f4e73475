// What lies over the slide: classes, a probability, tissue, regions, cells, refused patches. All on one canvas, drawn in
// the same frame as the slide beneath it, so that nothing lags behind.

import { getCells, getRegions, tissueAddress } from "./api.js";
import { scaleGradient } from "./colour.js";
import { announce, complain, element, memory, settled } from "./elements.js";
import { className, count, plural } from "./format.js";
import { rootScale } from "./viewer.js";

const OTHER = "other";
const CELLS_FROM_UM_PER_PX = 1.05;
const CELL_UM = 4.2, CELL_LEAST_PX = 3, CELLS_ASKED_MS = 140, CELLS_MARGIN = 0.25;
// A patch that is large on the screen is being read: its colour moves to its border and leaves the tissue clear.
const FILL_FADES_FROM_PX = 26, FILL_FADES_TO_PX = 80, FILL_LEAST = 0.15, MOST_BORDERS = 3000;
const HATCH_PX = 7;
const STEP = 0.1;

export const LAYERS = ["classes", "probability", "tissue", "regions", "cells", "refused"];
const NAMES = {
  classes: "Classes",
  probability: "Probability",
  tissue: "Tissue",
  regions: "Regions",
  cells: "Cells",
  refused: "Refused",
};
const KEYS = { classes: "c", probability: "p", tissue: "t", regions: "g", cells: "n", refused: "x" };
const AT_FIRST = {
  classes: { on: true, opacity: 0.4 },
  probability: { on: false, opacity: 0.6 },
  tissue: { on: false, opacity: 0.8 },
  regions: { on: true, opacity: 1 },
  cells: { on: false, opacity: 0.9 },
  refused: { on: true, opacity: 0.7 },
};

export class Overlays {
  /** @param {SlideViewer} viewer @param {HTMLElement} list where the switches go */
  constructor(viewer, list, regions) {
    this.viewer = viewer;
    this.slide = viewer.slide;
    this.list = list;
    this.drawn = regions;
    this.grid = null;
    this.images = {};
    this.hidden = new Set();
    this.painters = [];
    this.peeking = false;
    this.cells = null;
    this.state = structuredClone(AT_FIRST);
    for (const [name, kept] of Object.entries(memory.read("layers", {}))) if (this.state[name]) Object.assign(this.state[name], kept);
    this.colours = Object.fromEntries(this.slide.classes.map(({ name, colour }) => [name, colour]));
    this.shown = this.slide.classes.filter(({ name }) => name !== OTHER).at(-1)?.name ?? "";
    this.canvas = element("canvas", { class: "overlay", aria: { hidden: "true" } });
    viewer.osd.canvas.append(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.#makeSwitches();
    viewer.onMove(() => { this.paint(); this.#askForCells(); });
    if (this.#offers("tissue")) this.#loadTissue();
    if (this.#offers("regions")) getRegions(this.slide.row.slide_id).then((found) => { this.regions = found.features ?? []; this.repaint(); }, complain);
  }

  /** Add what is painted over everything else; it gets the context, in CSS pixels, and the transform. */
  addPainter(painter) { this.painters.push(painter); }

  setPatches(grid) {
    this.grid = grid;
    this.images = {};
    this.#describeRefused();
    this.repaint();
  }

  #offers(name) {
    if (name === "classes" || name === "probability" || name === "refused") return this.slide.layers.patches;
    if (name === "regions") return true;
    return Boolean(this.slide.layers[name]);
  }

  // --- switches

  #makeSwitches() {
    this.switches = {};
    this.list.replaceChildren(...LAYERS.filter((name) => this.#offers(name)).map((name) => this.#makeSwitch(name)));
    this.#showCellsHint();
  }

  #makeSwitch(name) {
    const { on, opacity } = this.state[name];
    const box = element("input", { type: "checkbox", id: `layer-${name}`, checked: on });
    const slider = element("input", {
      type: "range", min: 0.05, max: 1, step: 0.05, value: opacity, title: "Opacity",
      aria: { label: `Opacity of: ${NAMES[name]}` },
    });
    const hint = element("small", { class: "hint" });
    const label = element("label", { for: box.id }, NAMES[name]);
    const key = element("kbd", { aria: { hidden: "true" } }, KEYS[name]);
    box.setAttribute("aria-keyshortcuts", KEYS[name]);
    box.addEventListener("change", () => this.turn(name, box.checked));
    slider.addEventListener("input", () => {
      this.last = name;
      this.state[name].opacity = Number(slider.value);
      this.#keep();
    });
    this.switches[name] = { box, slider, hint };
    const legend = this.#legendOf(name);
    const item = element("li", { class: on ? "layer on" : "layer" },
      element("div", { class: "layer-line" }, box, label, hint, key, slider), legend ? element("div", { class: "legend" }, legend) : null);
    return item;
  }

  #legendOf(name) {
    if (name === "classes" || name === "cells") return this.#classLegend(name);
    if (name === "probability") return this.#probabilityLegend();
    if (name === "regions") {
      const kinds = [["exclude", "excluded"], ["score", "score only"], ...(this.slide.layers.regions ? [["used", "of the run"]] : [])];
      return kinds.map(([kind, words]) =>
        element("span", { class: "entry" }, element("span", { class: `swatch region-${kind}` }), words));
    }
    return null;
  }

  #classLegend(layer) {
    return this.slide.classes.map(({ name, colour }) => {
      const swatch = element("span", { class: layer === "cells" ? "swatch ring" : "swatch", style: { "--ink": colour } });
      if (layer === "cells") return element("span", { class: "entry" }, swatch, className(name));
      const button = element("button", {
        type: "button", class: "entry", aria: { pressed: "true" }, title: `Show or hide ${className(name)}`,
      }, swatch, className(name));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(name)) this.hidden.add(name);
        button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
        delete this.images.classes;
        this.repaint();
      });
      return button;
    });
  }

  #probabilityLegend() {
    const shares = this.slide.outputs === "shares";
    const choice = element("select", { aria: { label: shares ? "Class whose share is shown" : "Class whose probability is shown" } },
      this.slide.classes.map(({ name }) => element("option", { value: name, selected: name === this.shown }, className(name))));
    choice.addEventListener("change", () => {
      this.shown = choice.value;
      delete this.images.probability;
      this.turn("probability", true);
    });
    return [
      element("span", { class: "entry" }, shares ? "share of" : "of", choice),
      element("span", { class: "entry ramp-line" }, "0", element("span", { class: "ramp", style: { background: scaleGradient() } }), "1"),
    ];
  }

  #describeRefused() {
    const { hint } = this.switches.refused, number = this.grid.refused.length;
    hint.textContent = number ? plural(number, "patch", "patches") : "none";
  }

  #showCellsHint() {
    if (!this.switches.cells) return;
    const { hint } = this.switches.cells, { count: number } = this.slide.cells;
    const near = this.#cellsCanBeTold();
    const asked = this.cells && this.state.cells.on && near;
    hint.textContent = asked
      ? this.cells.n < this.cells.total ? `${count(this.cells.n)} of ${count(this.cells.total)}` : `${count(this.cells.total)} here`
      : near || !this.state.cells.on ? count(number) : "from 10× on";
  }

  turn(name, on = !this.state[name].on) {
    const { box } = this.switches[name] ?? {};
    if (!box) {
      announce(`${NAMES[name]}: not in this run`);
      return;
    }
    this.state[name].on = box.checked = on;
    box.closest("li").classList.toggle("on", on);
    // Both colour the whole patch: together they would only mix into colours of neither.
    if (on && name === "probability" && this.state.classes.on) this.turn("classes", false);
    if (on && name === "classes" && this.state.probability.on) this.turn("probability", false);
    this.last = on ? name : this.last;
    announce(`${NAMES[name]} ${on ? "on" : "off"}`);
    this.#keep();
    this.#askForCells();
  }

  /** Make the layer that was switched on last, or the first that is on, more or less opaque. */
  fade(direction) {
    const name = this.last && this.state[this.last].on ? this.last : LAYERS.find((each) => this.#on(each));
    if (!name) return;
    const { slider } = this.switches[name], set = this.state[name];
    set.opacity = Math.min(1, Math.max(0.05, Math.round(20 * (set.opacity + direction * STEP)) / 20));
    slider.value = set.opacity;
    announce(`${NAMES[name]}: opacity ${Math.round(100 * set.opacity)} %`);
    this.#keep();
  }

  /** Hide everything for as long as somebody looks at the bare tissue. */
  peek(on) {
    if (this.peeking === on) return;
    this.peeking = on;
    this.repaint();
  }

  #keep() {
    memory.keep("layers", this.state);
    this.repaint();
  }

  // --- what is fetched

  #loadTissue() {
    const image = new Image();
    image.addEventListener("load", () => { this.tissue = image; this.repaint(); });
    image.src = tissueAddress(this.slide.row.slide_id);
  }

  #cellsCanBeTold() {
    const um = this.viewer.micronsPerPixel();
    return Number.isFinite(um) && um <= CELLS_FROM_UM_PER_PX;
  }

  #askForCells() {
    if (!this.slide.cells.available) return;
    this.#showCellsHint();
    if (!this.state.cells.on || !this.#cellsCanBeTold()) return;
    const box = this.viewer.visible(), had = this.cells?.box;
    const inside = had && box.x >= had.x && box.y >= had.y && box.x + box.width <= had.x + had.width && box.y + box.height <= had.y + had.height;
    // A box of which not all was sent must be asked for again where less of it is seen.
    if (inside && (this.cells.n === this.cells.total || box.width > 0.6 * had.width)) return;
    this.#fetchCells();
  }

  #fetchCells = settled(async () => {
    if (!this.state.cells.on || !this.#cellsCanBeTold()) return;
    const { x, y, width, height } = this.viewer.visible();
    const left = Math.floor(x - CELLS_MARGIN * width), top = Math.floor(y - CELLS_MARGIN * height);
    const box = { x: left, y: top, width: Math.ceil((1 + 2 * CELLS_MARGIN) * width), height: Math.ceil((1 + 2 * CELLS_MARGIN) * height) };
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      this.cells = { ...(await getCells(this.slide.row.slide_id, box, this.asking.signal)), box };
    } catch (error) {
      if (error.name !== "AbortError") complain(error);
      return;
    }
    this.#showCellsHint();
    this.repaint();
  }, CELLS_ASKED_MS);

  // --- painting

  /** Paint with the next frame, however often this is called before it. */
  repaint() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.paint(); });
  }

  paint() {
    if (!this.viewer.isOpen) return;
    const { context, canvas } = this, ratio = devicePixelRatio || 1;
    const width = Math.round(this.viewer.width * ratio), height = Math.round(this.viewer.height * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (this.peeking) return;
    const place = this.viewer.transform();
    const toSlide = () => context.setTransform(ratio * place.a, ratio * place.b, ratio * place.c, ratio * place.d, ratio * place.e, ratio * place.f);
    const toScreen = () => context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.#on("tissue") && this.tissue) this.#paintTissue(toSlide);
    if (this.grid?.n) {
      if (this.#on("classes")) this.#paintClasses(toSlide);
      if (this.#on("probability")) this.#paintProbability(toSlide);
      if (this.#on("refused") && this.grid.refused.length) this.#paintRefused(toSlide, ratio);
    }
    toScreen();
    if (this.#on("cells") && this.cells && this.#cellsCanBeTold()) this.#paintCells(place, ratio);
    context.globalAlpha = 1;
    if (this.#on("regions")) {
      context.globalAlpha = this.state.regions.opacity;
      for (const feature of this.regions ?? []) this.#paintUsed(feature, place);
      this.drawn.paint(context, place);
      context.globalAlpha = 1;
    }
    for (const painter of this.painters) {
      context.save();
      painter(context, place);
      context.restore();
    }
  }

  #on(name) { return this.state[name].on && this.#offers(name); }

  #paintTissue(toSlide) {
    const { x, y, width, height } = this.slide.overview_box;
    toSlide();
    this.context.globalAlpha = this.state.tissue.opacity;
    this.context.imageSmoothingEnabled = true;
    this.context.drawImage(this.tissue, x, y, width, height);
  }

  // Only the part that is seen: a canvas may not be clever about what lies outside it.
  #visiblePatches() {
    const { grid } = this, box = this.viewer.visible();
    const left = Math.max(0, Math.floor((box.x - grid.left) / grid.side)), top = Math.max(0, Math.floor((box.y - grid.top) / grid.side));
    const right = Math.min(grid.columns, Math.ceil((box.x + box.width - grid.left) / grid.side));
    const bottom = Math.min(grid.rows, Math.ceil((box.y + box.height - grid.top) / grid.side));
    return { left, top, columns: right - left, rows: bottom - top };
  }

  #paintImage(context, image, alpha) {
    const { left, top, columns, rows } = this.#visiblePatches(), { grid } = this;
    if (columns <= 0 || rows <= 0) return;
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = false;
    context.drawImage(image, left, top, columns, rows, grid.left + left * grid.side, grid.top + top * grid.side, columns * grid.side, rows * grid.side);
  }

  #paintClasses(toSlide) {
    const { grid, context } = this, { opacity } = this.state.classes;
    this.images.classes ??= grid.classImage(this.colours, this.hidden);
    const size = (grid.side * this.viewer.scale()) / rootScale();
    const faded = Math.min(1, Math.max(0, (size - FILL_FADES_FROM_PX) / (FILL_FADES_TO_PX - FILL_FADES_FROM_PX)));
    toSlide();
    this.#paintImage(context, this.images.classes, opacity * (1 - (1 - FILL_LEAST) * faded));
    if (faded === 0) return;
    context.globalAlpha = Math.min(1, 0.35 + opacity) * faded;
    this.#outlineClasses();
  }

  // Borders of what belongs together, inside it: a line around every patch would be a grid and nothing else.
  #outlineClasses() {
    const { grid, context } = this, { left, top, columns, rows } = this.#visiblePatches(), { side } = grid;
    if (columns <= 0 || rows <= 0 || columns * rows > MOST_BORDERS) return;
    const labelAt = (column, row) => {
      if (column < 0 || row < 0 || column >= grid.columns || row >= grid.rows) return -1;
      const patch = grid.index[row * grid.columns + column];
      return patch < 0 ? -1 : grid.label[patch];
    };
    const paths = new Map(), pixel = 1 / this.viewer.scale(), inset = 1.2 * pixel;
    for (let row = top; row < top + rows; row += 1) {
      for (let column = left; column < left + columns; column += 1) {
        const label = labelAt(column, row), name = grid.classes[label];
        if (name === undefined || name === OTHER || this.hidden.has(name)) continue;
        if (!paths.has(name)) paths.set(name, new Path2D());
        const path = paths.get(name), x = grid.left + column * side, y = grid.top + row * side;
        const [x0, x1, y0, y1] = [x + inset, x + side - inset, y + inset, y + side - inset];
        const sides = [[0, -1, x, y0, x + side, y0], [0, 1, x, y1, x + side, y1], [-1, 0, x0, y, x0, y + side], [1, 0, x1, y, x1, y + side]];
        for (const [across, down, fromX, fromY, toX, toY] of sides) {
          if (labelAt(column + across, row + down) === label) continue;
          path.moveTo(fromX, fromY);
          path.lineTo(toX, toY);
        }
      }
    }
    context.lineWidth = 2.4 * pixel;
    for (const [name, path] of paths) {
      context.strokeStyle = this.colours[name];
      context.stroke(path);
    }
  }

  #paintProbability(toSlide) {
    this.images.probability ??= this.grid.probabilityImage(this.shown);
    toSlide();
    this.#paintImage(this.context, this.images.probability, this.state.probability.opacity);
  }

  #paintRefused(toSlide, ratio) {
    const { grid, context } = this;
    toSlide();
    if (grid.side * this.viewer.scale() < HATCH_PX) {
      // Too small for lines.
      this.images.refused ??= grid.refusedImage();
      this.#paintImage(context, this.images.refused, 0.6 * this.state.refused.opacity);
      return;
    }
    const { left, top, columns, rows } = this.#visiblePatches();
    context.beginPath();
    for (const patch of grid.refused) {
      const x = grid.xy[2 * patch], y = grid.xy[2 * patch + 1];
      const column = (x - grid.left) / grid.side, row = (y - grid.top) / grid.side;
      if (column >= left && row >= top && column < left + columns && row < top + rows) context.rect(x, y, grid.side, grid.side);
    }
    context.globalAlpha = this.state.refused.opacity;
    // The lines stay as they are on the screen, whatever the zoom.
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.#hatch(context, ratio);
    context.fill();
  }

  #hatch(context, ratio) {
    if (this.hatchRatio === ratio) return this.hatchPattern;
    const size = Math.round(HATCH_PX * ratio), tile = document.createElement("canvas");
    tile.width = tile.height = size;
    const ink = tile.getContext("2d");
    ink.fillStyle = "rgba(255,255,255,0.5)";
    ink.fillRect(0, 0, size, size);
    ink.strokeStyle = "#3c3c3c";
    ink.lineWidth = 1.3 * ratio;
    ink.beginPath();
    for (const shift of [-size, 0, size]) {
      ink.moveTo(shift - 1, size + 1);
      ink.lineTo(shift + size + 1, -1);
    }
    ink.stroke();
    this.hatchRatio = ratio;
    this.hatchPattern = context.createPattern(tile, "repeat");
    return this.hatchPattern;
  }

  #paintCells(place, ratio) {
    const { context, cells } = this, radius = Math.max(CELL_LEAST_PX, CELL_UM / this.viewer.micronsPerPixel());
    const rings = this.#rings(radius, ratio), half = rings.half, { width, height } = this.viewer;
    context.globalAlpha = this.state.cells.opacity;
    for (let cell = 0; cell < cells.n; cell += 1) {
      const px = cells.xy[2 * cell], py = cells.xy[2 * cell + 1];
      const x = place.a * px + place.c * py + place.e, y = place.b * px + place.d * py + place.f;
      if (x < -half || y < -half || x > width + half || y > height + half) continue;
      context.drawImage(cells.tumour[cell] ? rings.of[cells.her2Class[cell]] : rings.other, x - half, y - half, 2 * half, 2 * half);
    }
  }

  // A ring for each class, drawn once for a zoom and stamped: thousands of arcs a frame would be felt.
  #rings(radius, ratio) {
    const rounded = Math.round(2 * radius) / 2;
    if (this.ringsMade?.rounded === rounded && this.ringsMade.ratio === ratio) return this.ringsMade;
    const tumour = this.slide.classes.filter(({ name }) => name !== OTHER), thick = rounded > 9 ? 2.4 : 1.7, half = rounded + 3;
    const stamp = (colour, size) => {
      const made = document.createElement("canvas");
      made.width = made.height = Math.ceil(2 * half * ratio);
      const ink = made.getContext("2d");
      ink.scale(ratio, ratio);
      for (const [stroke, width] of [["rgba(255,255,255,0.85)", thick + 1.6], [colour, thick]]) {
        ink.strokeStyle = stroke;
        ink.lineWidth = width;
        ink.beginPath();
        ink.arc(half, half, size, 0, 2 * Math.PI);
        ink.stroke();
      }
      return made;
    };
    this.ringsMade = {
      rounded, ratio, half,
      of: tumour.map(({ colour }) => stamp(colour, rounded)),
      other: stamp(this.colours[OTHER] ?? "#5a5d62", Math.max(1.5, rounded * 0.4)),
    };
    return this.ringsMade;
  }

  #paintUsed(feature, place) {
    const { context } = this;
    context.beginPath();
    for (const ring of ringsOf(feature.geometry)) trace(context, ring, place);
    for (const [colour, width] of [["rgba(255,255,255,0.9)", 4], ["#2b3a67", 1.8]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }
}

function ringsOf(geometry) {
  if (geometry?.type === "Polygon") return geometry.coordinates;
  if (geometry?.type === "MultiPolygon") return geometry.coordinates.flat();
  return [];
}

/** Add a ring of level-0 points to the path, in CSS pixels. */
export function trace(context, ring, { a, b, c, d, e, f }) {
  ring.forEach(([x, y], place) => {
    const at = [a * x + c * y + e, b * x + d * y + f];
    if (place === 0) context.moveTo(...at);
    else context.lineTo(...at);
  });
  context.closePath();
}
