// Another slide of the case beside this one, moved with it. What lies where is a rotation and a shift in micrometres, set by
// the reader, since sections of a block are never cut and mounted alike.

import { getSlide, slideAddress } from "./api.js";
import { announce, by, complain, element, memory } from "./elements.js";
import { resultOf, stainWords } from "./format.js";
import { showScale, SlideViewer } from "./viewer.js";

const nextFrame = () => new Promise(requestAnimationFrame);
const turned = ({ x, y }, degrees) => {
  const angle = (degrees * Math.PI) / 180, [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return { x: cos * x - sin * y, y: sin * x + cos * y };
};

export class Beside {
  /** @param {SlideViewer} viewer @param {() => void} changed called when a slide was opened or closed here */
  constructor(viewer, changed) {
    this.viewer = viewer;
    this.changed = changed;
    this.slideId = "";
    this.other = null;
    this.linked = true;
    this.leader = viewer;
    this.#fillChoice();
    viewer.onMove(() => { if (this.leader === viewer) this.#follow(); });
    // Whoever was touched last leads the other. Keys, buttons and Back are always of the first slide.
    const lead = (event) => { this.leader = this.other && by("beside-slide").contains(event.target) ? this.other : viewer; };
    for (const touch of ["pointerdown", "wheel"]) document.addEventListener(touch, lead, { capture: true, passive: true });
    for (const own of ["keydown", "popstate"]) window.addEventListener(own, () => { this.leader = viewer; }, { capture: true });
    viewer.osd.addHandler("canvas-exit", () => { by("beside-pointer").hidden = true; });
    by("linked").addEventListener("click", () => this.toggleLink());
    by("align").addEventListener("click", () => this.align());
    by("beside-close").addEventListener("click", () => this.close());
  }

  get companions() { return this.viewer.slide.companions ?? []; }
  get isOpen() { return this.other !== null; }

  #fillChoice() {
    by("beside-choice").hidden = this.companions.length === 0;
    this.buttons = this.companions.map(({ slide_id: slideId, modality: stain, name }, place) => {
      const button = element("button", {
        type: "button", aria: { pressed: "false" }, title: `${name ?? slideId} beside this slide${place ? "" : " (O)"}`,
      }, `${stainWords(stain)} beside`);
      button.addEventListener("click", () => (this.slideId === slideId ? this.close() : this.open(slideId)));
      return button;
    });
    by("beside-choice").replaceChildren(...this.buttons);
  }

  #showChoice() {
    this.buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(this.companions[place].slide_id === this.slideId)));
  }

  toggle() {
    if (this.slideId) this.close();
    else if (this.companions.length) this.open(this.companions[0].slide_id);
    else announce("The run holds no other slide of this case");
  }

  async open(slideId) {
    if (slideId === this.slideId) return;
    if (!this.companions.some((companion) => companion.slide_id === slideId)) return;
    this.close({ quietly: true });
    this.slideId = slideId;
    let slide;
    try {
      slide = await getSlide(slideId);
    } catch (error) {
      this.slideId = "";
      complain(error);
      return;
    }
    if (this.slideId !== slideId) return;
    if (!slide.viewable) {
      this.slideId = "";
      complain(`${slideId} cannot be shown beside: ${slide.why_not_viewable}`);
      return;
    }
    this.#show(slide);
    this.pairKey = `pair.${this.viewer.slide.row.slide_id}|${slideId}`;
    this.pair = memory.read(this.pairKey) ?? firstGuess(this.viewer.slide, slide);
    await this.other.ready;
    // Halving the width of the first view is noticed by its viewer only with the next frame; a zoom before that is lost.
    await nextFrame();
    await nextFrame();
    if (this.slideId !== slideId) return;
    this.#follow();
    announce(`${stainWords(slide.row.stain)} beside, moved together`);
    this.changed();
  }

  #show(slide) {
    by("beside-view").hidden = false;
    this.#showChoice();
    by("beside-name").textContent = [stainWords(slide.row.stain ?? slide.row.modality), slide.row.slide_id, slide.row.status === "scored" ? resultOf(slide.row) : ""].filter(Boolean).join(" \u00b7 ");
    by("beside-open").href = slideAddress(this.slideId);
    this.other = new SlideViewer(by("beside-slide"), slide, { label: `Slide ${slide.row.slide_id}, beside` });
    const { osd } = this.other;
    this.other.onMove(() => { if (this.leader === this.other) this.#lead(); });
    osd.addHandler("canvas-drag", (event) => { this.#moveAlone(event); });
    osd.addHandler("canvas-drag-end", (event) => { if (event.shift) event.preventDefaultAction = true; });
    showScale(this.other, by("beside-bar"), by("beside-bar-label"), by("beside-magnification"));
  }

  close({ quietly = false } = {}) {
    if (!this.slideId && !this.other) return;
    this.other?.osd.destroy();
    this.other = null;
    this.slideId = "";
    this.leader = this.viewer;
    by("beside-slide").replaceChildren();
    by("beside-view").hidden = true;
    this.#showChoice();
    if (quietly) return;
    announce("Slide beside closed");
    this.changed();
  }

  toggleLink() {
    if (!this.isOpen) return;
    this.linked = !this.linked;
    by("linked").setAttribute("aria-pressed", String(this.linked));
    by("linked").textContent = this.linked ? "Linked" : "Not linked";
    announce(this.linked ? "Moved together again, as aligned before. Align here keeps what you see." : "Each slide moves alone; align when they show the same place");
    if (this.linked) this.#follow();
  }

  /** What is in the middle of both views is the same place, and what points up in both the same direction. */
  align() {
    if (!this.isOpen) return;
    const a = this.#um(this.viewer), b = this.#um(this.other);
    const angle = b.r - a.r, moved = turned(a, -angle);
    this.pair = { angle, x: b.x - moved.x, y: b.y - moved.y };
    memory.keep(this.pairKey, this.pair);
    this.linked = true;
    by("linked").setAttribute("aria-pressed", "true");
    by("linked").textContent = "Linked";
    announce("Aligned: the middle of both views is the same place");
    this.#follow();
  }

  /** Move the slide beside alone, by screen pixels, and remember it as the shift between the two. */
  nudge(x, y) {
    if (!this.isOpen) return;
    this.other.view.panBy(this.other.view.deltaPointsFromPixels(new OpenSeadragon.Point(x, y)), true);
    this.#takeShift();
  }

  #moveAlone(event) {
    if (!event.shift || !this.linked) return;
    event.preventDefaultAction = true;
    this.nudge(-event.delta.x, -event.delta.y);
  }

  #takeShift() {
    if (!this.linked) return;
    const a = this.#um(this.viewer), b = this.#um(this.other), moved = turned(a, -this.pair.angle);
    this.pair = { ...this.pair, x: b.x - moved.x, y: b.y - moved.y };
    memory.keep(this.pairKey, this.pair);
  }

  // Where a view is in micrometres of its slide. Without a scale on both, pixels stand for them.
  #um(viewer) {
    const { x, y, w, r } = viewer.place({ target: false }), unit = this.#unit(viewer);
    return { x: x * unit, y: y * unit, w: w * unit, r };
  }
  #unit(viewer) {
    return this.viewer.slide.mpp && this.other?.slide.mpp ? viewer.slide.mpp : 1;
  }

  #follow() {
    if (!this.linked || !this.other?.isOpen) return;
    const at = this.#um(this.viewer), { x, y } = turned(at, -this.pair.angle);
    this.#place(this.other, { x: x + this.pair.x, y: y + this.pair.y, w: at.w, r: at.r + this.pair.angle }, at.w / this.viewer.width);
  }

  #lead() {
    if (!this.linked || !this.other?.isOpen) return;
    const at = this.#um(this.other), { x, y } = turned({ x: at.x - this.pair.x, y: at.y - this.pair.y }, this.pair.angle);
    this.#place(this.viewer, { x, y, r: at.r - this.pair.angle }, at.w / this.other.width);
  }

  // Both show as many micrometres to a screen pixel, however wide they are.
  #place(viewer, { x, y, r }, umPerPixel) {
    const unit = this.#unit(viewer);
    viewer.go({ x: x / unit, y: y / unit, r, w: (umPerPixel * viewer.width) / unit }, { immediately: true });
  }

  /** Show in the slide beside where the pointer is in this one; CSS pixels of the view. */
  point(position) {
    const mark = by("beside-pointer");
    mark.hidden = !(this.isOpen && this.linked && position);
    if (mark.hidden) return;
    // The views have the same scale and, by the pair, the same place in their middle.
    const x = this.other.width / 2 + position.x - this.viewer.width / 2, y = this.other.height / 2 + position.y - this.viewer.height / 2;
    mark.hidden = x < 0 || y < 0 || x > this.other.width || y > this.other.height;
    mark.style.transform = `translate(${x}px, ${y}px)`;
  }
}


// Slides of one size were likely cut from one block and scanned alike; of others the middle of the tissue is the best guess.
function firstGuess(one, other) {
  if (one.width === other.width && one.height === other.height) return { angle: 0, x: 0, y: 0 };
  const unit = (slide) => (one.mpp && other.mpp ? slide.mpp : 1);
  const middle = (slide) => {
    const box = slide.overview_box ?? { x: 0, y: 0, width: slide.width, height: slide.height };
    return { x: (box.x + box.width / 2) * unit(slide), y: (box.y + box.height / 2) * unit(slide) };
  };
  const [a, b] = [middle(one), middle(other)];
  return { angle: 0, x: b.x - a.x, y: b.y - a.y };
}
