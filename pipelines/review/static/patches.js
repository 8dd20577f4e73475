// The patches of a slide as a grid: looked up by place, drawn as images of one pixel a patch, searched for hot spots.

import { rgbOf, SCALE } from "./colour.js";

const REFUSED = 255;

const OTHER = "other";
const WEIGHTS = { 0: 0, "1+": 1, "2+": 2, "3+": 3, negative: 0, positive: 3 };
const SPOT_UM = 320, APART_UM = 800, MOST_SPOTS = 24, WORTH_A_LOOK = 0.25;
const OTHER_ALPHA = 110;

export class PatchGrid {
  constructor(parsed) {
    Object.assign(this, parsed);
    this.side = parsed.side_px0;
    const { xy, n, side } = this;
    let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
    for (let patch = 0; patch < n; patch += 1) {
      left = Math.min(left, xy[2 * patch]);
      right = Math.max(right, xy[2 * patch]);
      top = Math.min(top, xy[2 * patch + 1]);
      bottom = Math.max(bottom, xy[2 * patch + 1]);
    }
    this.left = n ? left : 0;
    this.top = n ? top : 0;
    this.columns = n ? Math.round((right - left) / side) + 1 : 1;
    this.rows = n ? Math.round((bottom - top) / side) + 1 : 1;
    this.cell = new Int32Array(n);
    this.index = new Int32Array(this.columns * this.rows).fill(-1);
    this.refused = [];
    for (let patch = 0; patch < n; patch += 1) {
      const column = Math.round((xy[2 * patch] - this.left) / side), row = Math.round((xy[2 * patch + 1] - this.top) / side);
      this.cell[patch] = row * this.columns + column;
      this.index[this.cell[patch]] = patch;
      if (this.label[patch] === REFUSED) this.refused.push(patch);
    }
  }

  /** The patch over a point of level 0, or -1. */
  at(x, y) {
    const column = Math.floor((x - this.left) / this.side), row = Math.floor((y - this.top) / this.side);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return -1;
    return this.index[row * this.columns + column];
  }

  /** What is known of a patch. */
  of(patch) {
    const k = this.classes.length, refused = this.label[patch] === REFUSED;
    return {
      x: this.xy[2 * patch],
      y: this.xy[2 * patch + 1],
      tissue: this.tissue[patch],
      refused,
      reason: this.refused_reasons[this.reason[patch]] ?? "",
      label: refused ? null : this.classes[this.label[patch]],
      probabilities: refused ? [] : Array.from(this.probabilities.subarray(patch * k, (patch + 1) * k)),
    };
  }

  /** One pixel a patch, coloured by its class; classes that are hidden are left out. */
  classImage(colours, hidden) {
    const inks = this.classes.map((name) => (hidden.has(name) ? null : [...rgbOf(colours[name]), name === OTHER ? OTHER_ALPHA : 255]));
    return this.#image((patch) => inks[this.label[patch]] ?? null);
  }

  /** One pixel a patch, coloured by the probability of one class. */
  probabilityImage(name) {
    const k = this.classes.length, at = this.classes.indexOf(name), ink = [0, 0, 0, 255];
    return this.#image((patch) => {
      const value = this.probabilities[patch * k + at];
      if (!(value >= 0)) return null;
      const step = 3 * Math.min(255, Math.round(255 * value));
      ink[0] = SCALE[step];
      ink[1] = SCALE[step + 1];
      ink[2] = SCALE[step + 2];
      return ink;
    });
  }

  /** One opaque pixel for each patch that was refused. */
  refusedImage() {
    const ink = [70, 70, 70, 255];
    return this.#image((patch) => (this.label[patch] === REFUSED ? ink : null));
  }

  #image(inkOf) {
    const pixels = new ImageData(this.columns, this.rows);
    for (let patch = 0; patch < this.n; patch += 1) {
      const ink = inkOf(patch);
      if (ink) pixels.data.set(ink, 4 * this.cell[patch]);
    }
    const canvas = document.createElement("canvas");
    canvas.width = this.columns;
    canvas.height = this.rows;
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  /**
   * Fields that stain most, strongest first: places whose surroundings, not just whose own patch, stain.
   * @returns {{x: number, y: number, share: number, name: string}[]} level-0 pixels of the centre, share of the most
   *   that is possible, and the class that is most frequent there
   */
  hotSpots(mpp) {
    const reach = Math.max(1, Math.round(SPOT_UM / 2 / (this.side * (mpp || 0.25))));
    const apart = Math.max(2, APART_UM / (this.side * (mpp || 0.25)));
    const strength = this.#blurred(this.#staining(), reach);
    const order = Array.from(this.cell).filter((cell) => this.label[this.index[cell]] !== REFUSED);
    order.sort((a, b) => strength[b] - strength[a] || a - b);
    const spots = [];
    for (const cell of order) {
      if (spots.length === MOST_SPOTS || strength[cell] < WORTH_A_LOOK * strength[order[0]] || strength[cell] <= 0) break;
      const column = cell % this.columns, row = Math.floor(cell / this.columns);
      if (spots.some((spot) => Math.hypot(spot.column - column, spot.row - row) < apart)) continue;
      spots.push({
        column,
        row,
        x: this.left + (column + 0.5) * this.side,
        y: this.top + (row + 0.5) * this.side,
        share: strength[cell] / 3,
        name: this.#mostFrequent(column, row, reach),
      });
    }
    return spots;
  }

  // Mean staining of a patch, 0 to 3, by its share of tissue.
  #staining() {
    const k = this.classes.length, weights = this.classes.map((name) => WEIGHTS[name] ?? 0);
    const staining = new Float32Array(this.columns * this.rows);
    for (let patch = 0; patch < this.n; patch += 1) {
      if (this.label[patch] === REFUSED) continue;
      let sum = 0;
      for (let at = 0; at < k; at += 1) sum += weights[at] * this.probabilities[patch * k + at];
      staining[this.cell[patch]] = sum * this.tissue[patch];
    }
    return staining;
  }

  // Mean over a square around each place, by sums over all that lies above and to the left.
  #blurred(values, reach) {
    const { columns, rows } = this, sums = new Float64Array((columns + 1) * (rows + 1));
    for (let row = 0; row < rows; row += 1) {
      let line = 0;
      for (let column = 0; column < columns; column += 1) {
        line += values[row * columns + column];
        sums[(row + 1) * (columns + 1) + column + 1] = sums[row * (columns + 1) + column + 1] + line;
      }
    }
    const size = (2 * reach + 1) ** 2, blurred = new Float32Array(columns * rows);
    for (let row = 0; row < rows; row += 1) {
      const top = Math.max(0, row - reach) * (columns + 1), bottom = Math.min(rows, row + reach + 1) * (columns + 1);
      for (let column = 0; column < columns; column += 1) {
        const left = Math.max(0, column - reach), right = Math.min(columns, column + reach + 1);
        blurred[row * columns + column] = (sums[bottom + right] - sums[top + right] - sums[bottom + left] + sums[top + left]) / size;
      }
    }
    return blurred;
  }

  #mostFrequent(column, row, reach) {
    const counts = new Map();
    for (let down = Math.max(0, row - reach); down <= Math.min(this.rows - 1, row + reach); down += 1) {
      for (let across = Math.max(0, column - reach); across <= Math.min(this.columns - 1, column + reach); across += 1) {
        const patch = this.index[down * this.columns + across];
        if (patch < 0 || this.label[patch] === REFUSED || this.classes[this.label[patch]] === OTHER) continue;
        counts.set(this.label[patch], (counts.get(this.label[patch]) ?? 0) + 1);
      }
    }
    const most = [...counts].sort((a, b) => b[1] - a[1])[0];
    return most ? this.classes[most[0]] : OTHER;
  }
}
