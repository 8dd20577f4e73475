// The page of a slide: puts its parts together.

import { getPatches, getRunAlone, getSlide, fileAddress, overviewAddress, postRescore, putDrawn, slideAddress } from "./api.js";
import { Beside } from "./beside.js";
import { boxOf, Drawing, KINDS } from "./drawing.js";
import { announce, by, complain, element, listenForTrouble, memory, worklistOrder } from "./elements.js";
import { count, resultOf, stainWords, times } from "./format.js";
import { obey, showHelp } from "./keyboard.js";
import { LAYERS, Overlays } from "./overlays.js";
import { showCall, showExamples, showHistory, showPercentages, showReasons, showRescored, showState } from "./panel.js";
import { PatchGrid } from "./patches.js";
import { Place, readPlace } from "./place.js";
import { Reading } from "./reading.js";
import { SignOff } from "./signoff.js";
import { drawScaleBar, showScale, SlideViewer } from "./viewer.js";

const PAN_PX = 120, ZOOM_STEP = 1.5, TURN = 90, NUDGE_PX = 6;
const MAGNIFICATIONS = [5, 10, 20, 40];
const NARROW_REM = 46;
const SPOT_AT = 10, EXAMPLE_WIDTHS = 6;

class SlidePage {
  constructor(run, slide) {
    this.run = run;
    this.slide = slide;
    this.rescored = null;
    this.spot = -1;
    this.saving = Promise.resolve();
  }

  async begin() {
    const { slide } = this;
    this.#showHead();
    this.#showPanel();
    this.signOff = new SignOff(slide, this.run, (review) => this.#signed(review));
    this.drawing = new Drawing(slide.drawn?.features ?? [], {
      changed: (features) => this.#regionsChanged(features),
      modeChanged: (kind) => this.#showMode(kind),
      selected: () => this.#showRegions(),
    });
    if (slide.viewable) await this.#openSlide();
    else this.#showWhyNot();
    this.#listen();
    if (this.drawing.features.length) this.#rescore();
    document.documentElement.dataset.ready = "true";
  }

  // --- head

  #showHead() {
    const { row } = this.slide;
    by("about").textContent = [row.name.replace(/\.[^.]*$/, "") === row.slide_id ? "" : row.name, stainWords(row.stain ?? row.modality)].filter(Boolean).join(" \u00b7 ");
    by("name").title = row.name;
    showState(this.slide);
    const order = worklistOrder.read(), listed = order?.slides ?? [], at = listed.indexOf(row.slide_id);
    const [previous, next] = at < 0 ? [this.slide.previous, this.slide.next] : [listed[at - 1], listed[at + 1]];
    for (const [id, target] of [["previous", previous], ["next", next]]) {
      if (target) by(id).href = slideAddress(target);
      else by(id).setAttribute("aria-disabled", "true");
    }
    by("position").textContent = at < 0 ? "" : `${count(at + 1)} of ${count(listed.length)}`;
    by("to-worklist").href = `/${at < 0 ? "" : order.address}`;
  }

  #step(id) {
    const link = by(id);
    if (link.hasAttribute("href")) location.assign(link.href);
    else announce(id === "next" ? "This is the last slide of the list" : "This is the first slide of the list");
  }

  // --- side panel

  #showPanel() {
    showCall(this.slide);
    showPercentages(this.slide);
    showReasons(this.slide);
    showHistory(this.slide);
    showExamples(this.slide, ({ x, y, size_px0: size }) => this.place?.jump({ x: x + size / 2, y: y + size / 2, w: EXAMPLE_WIDTHS * size }));
  }

  #signed(review) {
    this.slide.reviews.unshift(review);
    showHistory(this.slide);
    showState(this.slide);
    const more = by("next").hasAttribute("href") ? " J leads to the next slide." : "";
    announce(`Signed by ${review.reviewer}.${more}`);
  }

  // --- slide

  async #openSlide() {
    const { slide } = this;
    this.viewer = new SlideViewer(by("slide"), slide, {
      label: `Slide ${slide.row.slide_id}. Arrow keys move it, plus and minus zoom; the question mark lists all keys.`,
      navigator: by("navigator"),
    });
    this.overlays = new Overlays(this.viewer, by("layers"), this.drawing);
    this.drawing.attach(this.viewer, this.overlays);
    this.reading = new Reading(this.viewer, this.overlays);
    this.overlays.addPainter((context, place) => this.#markSpot(context, place));
    this.beside = new Beside(this.viewer, () => {
      this.place.note();
      this.#makeRoom();
    });
    showScale(this.viewer, by("bar"), by("bar-label"), by("magnification"));
    const patches = slide.layers.patches ? getPatches(slide.row.slide_id).then((parsed) => this.overlays.setPatches(new PatchGrid(parsed)), complain) : null;
    await this.viewer.ready;
    const place = readPlace();
    this.viewer.go(place, { immediately: true });
    this.place = new Place(this.viewer, { beside: () => this.beside.slideId, arrived: (there) => this.#arrived(there) });
    if (place.beside) await this.beside.open(place.beside);
    await patches;
  }

  #arrived(place) {
    if (place.beside) this.beside.open(place.beside);
    else if (this.beside.slideId) this.beside.close();
  }

  #showWhyNot() {
    const { row, why_not_viewable: why } = this.slide;
    // What the run kept of the slide: its map, or at least its overview.
    const kept = [[fileAddress(row.slide_id, "heatmap.png"), "Map of the patches"], [overviewAddress(row.slide_id), "Overview"]];
    const map = element("img", {}), next = () => {
      const [src, alt] = kept.shift() ?? [];
      if (src) Object.assign(map, { src, alt: `${alt} of ${row.slide_id}` });
      else map.remove();
    };
    map.addEventListener("error", next);
    next();
    by("no-view").hidden = false;
    by("no-view").replaceChildren(element("p", {}, element("strong", {}, "The slide cannot be shown. "), why || "It could not be opened."), map);
    for (const control of document.querySelectorAll(".tools button:not(#panel-open), .tools select")) control.disabled = true;
    for (const part of document.querySelectorAll("#overlays, .scale, #navigator")) part.hidden = true;
  }

  magnify(magnification) {
    if (!this.viewer || !this.slide.mpp) return;
    this.viewer.setMagnification(magnification);
    announce(times(magnification));
  }

  hotSpot(step) {
    const { grid } = this.overlays ?? {};
    if (!grid) {
      announce("No patches are known of this slide");
      return;
    }
    this.spots ??= grid.hotSpots(this.slide.mpp);
    if (!this.spots.length) {
      announce("No patch of this slide stains");
      return;
    }
    this.spot = this.spot < 0 && step < 0 ? this.spots.length - 1 : (this.spot + step + this.spots.length) % this.spots.length;
    const { x, y, name } = this.spots[this.spot];
    const w = this.slide.mpp ? (10 / SPOT_AT / this.slide.mpp) * this.viewer.width : 12 * grid.side;
    this.place.jump({ x, y, w: Math.min(w, this.viewer.place().w) });
    announce(`Hot spot ${this.spot + 1} of ${this.spots.length}, mostly ${name}`);
    this.overlays.repaint();
  }

  #markSpot(context, { a, b, c, d, e, f }) {
    const spot = this.spots?.[this.spot];
    if (!spot) return;
    const x = a * spot.x + c * spot.y + e, y = b * spot.x + d * spot.y + f, reach = Math.max(14, Math.hypot(a, b) * 160 / (this.slide.mpp || 0.25));
    context.beginPath();
    context.arc(x, y, reach, 0, 2 * Math.PI);
    context.setLineDash([6, 6]);
    for (const [colour, width] of [["rgba(255,255,255,0.9)", 4], ["#101820", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  // --- regions

  #showMode(kind) {
    by("draw-exclude").setAttribute("aria-pressed", String(kind === "exclude"));
    by("draw-score").setAttribute("aria-pressed", String(kind === "score"));
    by("slide").classList.toggle("drawing", kind !== null);
    by("draw-hint").hidden = kind === null;
    by("draw-hint").textContent = kind === null ? "" : `${KINDS[kind]}: click corners or drag an outline; Enter or the first corner closes it, Esc cancels. Keys: Space sets a corner at the cross.`;
    this.reading?.toggleCrosshair(kind !== null && this.crosshairWanted());
    if (kind === null) this.reading?.toggleCrosshair(false);
  }

  // A crosshair is in the way of a mouse.
  crosshairWanted() { return this.byKey; }

  draw(kind, byKey) {
    if (!this.viewer) return;
    this.byKey = byKey && !this.reading.pointer;
    this.drawing.start(kind);
  }

  async #regionsChanged(features) {
    this.rescored = null;
    this.#showRegions();
    this.#save();
    this.signOff.setRescored(null);
    if (features.length) await this.#rescore();
    else announce("No regions are drawn; the call is the run's");
  }

  #collection() { return { type: "FeatureCollection", features: this.drawing.features }; }

  #save() {
    const reviewer = this.signOff.reviewer({ ask: true }), collection = this.#collection();
    this.unsaved = !reviewer;
    if (!reviewer) return;
    memory.keep("reviewer", reviewer);
    // One after the other: the last to arrive is the one in force.
    this.saving = this.saving.then(() => putDrawn(this.slide.row.slide_id, collection, reviewer)).catch((error) => {
      this.unsaved = true;
      complain(error);
    });
  }

  async #rescore() {
    const features = this.drawing.features;
    this.#showRegions();
    try {
      const rescored = await postRescore(this.slide.row.slide_id, this.#collection());
      // Regions may have changed while the server was counting.
      if (features !== this.drawing.features) return;
      this.rescored = rescored;
      this.#showRegions();
      const now = rescored.call ? rescored.call.score || rescored.call.group : "no call";
      this.signOff.setRescored(now);
      const was = resultOf(this.slide.row);
      announce(`With your regions: ${now}${now === was ? ", as before" : `, was ${was}`}`);
    } catch (error) {
      by("redrawn").hidden = true;
      complain(error);
    }
  }

  #showRegions() {
    const { drawing } = this;
    showRescored(this.slide, drawing.features, this.rescored, {
      selection: drawing.selection,
      remove: (place) => drawing.remove(place),
      goTo: (place) => {
        drawing.select(place);
        if (!this.viewer) return;
        const { x, y, width, height } = boxOf(drawing.features[place]), { viewer } = this;
        this.place.jump({ x, y, w: 1.6 * Math.max(width, (height * viewer.width) / viewer.height) });
      },
    });
  }

  // --- controls

  #listen() {
    const click = (id, action) => by(id).addEventListener("click", action);
    for (const button of document.querySelectorAll("[data-times]")) button.addEventListener("click", () => this.magnify(Number(button.dataset.times)));
    click("fit", () => this.fit());
    click("turn-left", () => this.viewer?.rotateBy(-TURN));
    click("turn-right", () => this.viewer?.rotateBy(TURN));
    click("hot-spot", () => this.hotSpot(1));
    click("draw-exclude", () => this.draw("exclude", false));
    click("draw-score", () => this.draw("score", false));
    click("undo", () => this.drawing.undo());
    click("overlays-open", () => this.#toggleOverlays());
    click("panel-open", () => this.#togglePanel());
    by("reviewer").addEventListener("change", () => { if (this.unsaved && by("reviewer").value.trim()) this.#save(); });
    if (this.viewer) {
      this.#followPointer();
      this.viewer.osd.addHandler("animation-finish", () => { if (this.reading.crosshair && !this.drawing.drawing) announce(this.reading.inWords(), { quietly: true }); });
    }
    this.#toggleOverlays(memory.read("overlays-open", true));
    if (this.beside?.isOpen) this.#makeRoom();
    this.#togglePanel(memory.read("panel-open", true));
    obey(this.#keys());
    window.addEventListener("beforeprint", () => this.#preparePaper());
    window.addEventListener("pageshow", (event) => { if (event.persisted) this.#refresh(); });
  }

  #followPointer() {
    const view = by("slide"), at = ({ clientX, clientY }) => {
      const box = view.getBoundingClientRect();
      return { x: clientX - box.left, y: clientY - box.top };
    };
    const told = (position) => {
      this.reading.point(position);
      this.drawing.point(position);
      this.beside.point(position);
    };
    view.addEventListener("pointermove", (event) => told(at(event)));
    view.addEventListener("pointerleave", () => told(null));
  }

  // Paper has another shape than the screen: it gets the view as one picture, with the scale bar in it.
  #preparePaper() {
    if (!this.viewer) return;
    const paper = by("print"), shown = this.viewer.osd.drawer.canvas, context = paper.getContext("2d");
    paper.width = shown.width;
    paper.height = shown.height;
    for (const layer of [shown, this.overlays.canvas]) context.drawImage(layer, 0, 0, paper.width, paper.height);
    context.scale(paper.width / this.viewer.width, paper.height / this.viewer.height);
    drawScaleBar(context, this.viewer);
  }

  async #refresh() {
    this.slide.reviews = (await getSlide(slideId)).reviews;
    showHistory(this.slide);
    showState(this.slide);
  }

  fit() {
    this.viewer?.fit();
    announce("Whole slide");
  }

  #toggleOverlays(open = by("overlays").hidden) {
    by("overlays").hidden = !open || !this.viewer;
    by("overlays-open").setAttribute("aria-expanded", String(open));
    memory.keep("overlays-open", open);
  }

  // Two views on a small screen have no room for the list; it comes back with the whole view.
  #makeRoom() {
    const narrow = this.beside.isOpen && by("main-view").clientWidth < NARROW_REM * parseFloat(getComputedStyle(document.documentElement).fontSize);
    const open = !narrow && memory.read("overlays-open", true);
    by("overlays").hidden = !open;
    by("overlays-open").setAttribute("aria-expanded", String(open));
  }

  #togglePanel(open = by("panel").hidden) {
    by("panel").hidden = !open;
    by("panel-open").setAttribute("aria-expanded", String(open));
    memory.keep("panel-open", open);
  }

  #inPanel(action) {
    this.#togglePanel(true);
    action();
  }

  #pan(x, y) {
    if (!this.viewer) return;
    this.viewer.panBy(x * PAN_PX, y * PAN_PX);
  }

  #escape() {
    const { activeElement } = document;
    if (activeElement?.matches("input:not([type=checkbox]), textarea, select")) activeElement.blur();
    else if (this.drawing.cancel()) return;
    else if (this.drawing.selection >= 0) this.drawing.select(-1);
    else if (this.reading?.crosshair) this.reading.toggleCrosshair(false);
    else if (this.signOff.drop()) return;
    else if (activeElement !== document.body) activeElement?.blur();
  }

  #keys() {
    const { drawing, signOff, overlays } = this, has = () => Boolean(this.viewer);
    const layer = (name) => ({ group: "Overlays", run: () => overlays?.turn(name), when: has });
    const words = { classes: "Patch classes", probability: "Probability of one class", tissue: "Tissue found", regions: "Regions", cells: "Cells, from 10× on", refused: "Refused patches" };
    const keys = { classes: "c", probability: "p", tissue: "t", regions: "g", cells: "n", refused: "x" };
    const scores = ["0", "1+", "2+", "3+"];
    return [
      { group: "Slides", keys: ["j"], words: "Next slide", run: () => this.#step("next") },
      { group: "Slides", keys: ["k"], words: "Previous slide", run: () => this.#step("previous") },
      { group: "Slides", keys: ["w"], words: "Back to the worklist", run: () => location.assign(by("to-worklist").href) },
      { group: "Slides", keys: ["o"], words: "Other stain beside, on or off", run: () => this.beside?.toggle(), when: has },
      { group: "Slides", keys: ["y"], words: "Move both together or each alone", run: () => this.beside.toggleLink(), when: has },
      { group: "Slides", keys: ["Shift+y"], words: "Align here: the middles are the same place", run: () => this.beside.align(), when: has },
      { group: "Slides", keys: ["Shift+ArrowLeft"], shown: ["Shift+ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], words: "Shift the slide beside alone", run: () => this.beside.nudge(NUDGE_PX, 0), when: has },
      { keys: ["Shift+ArrowRight"], run: () => this.beside.nudge(-NUDGE_PX, 0), when: has },
      { keys: ["Shift+ArrowUp"], run: () => this.beside.nudge(0, NUDGE_PX), when: has },
      { keys: ["Shift+ArrowDown"], run: () => this.beside.nudge(0, -NUDGE_PX), when: has },

      { group: "View", keys: ["ArrowLeft"], shown: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], words: "Move", run: () => this.#pan(-1, 0) },
      { keys: ["ArrowRight"], run: () => this.#pan(1, 0) },
      { keys: ["ArrowUp"], run: () => this.#pan(0, -1) },
      { keys: ["ArrowDown"], run: () => this.#pan(0, 1) },
      { group: "View", keys: ["+", "="], shown: ["+"], words: "Zoom in", run: () => this.viewer?.zoomBy(ZOOM_STEP) },
      { group: "View", keys: ["-", "_"], shown: ["-"], words: "Zoom out", run: () => this.viewer?.zoomBy(1 / ZOOM_STEP) },
      ...MAGNIFICATIONS.map((each, place) => ({
        ...(place ? {} : { group: "View", shown: ["Shift+1", "2", "3", "4"], words: MAGNIFICATIONS.map((one) => `${one}×`).join(", ") }),
        keys: [`Shift+${place + 1}`], run: () => this.magnify(each),
      })),
      { group: "View", keys: ["f"], words: "Whole slide", run: () => this.fit() },
      { group: "View", keys: ["r"], words: "Turn right", run: () => this.viewer?.rotateBy(TURN) },
      { group: "View", keys: ["Shift+r"], words: "Turn left", run: () => this.viewer?.rotateBy(-TURN) },
      { group: "View", keys: ["h"], words: "Next hot spot: where most stains", run: () => this.hotSpot(1) },
      { group: "View", keys: ["Shift+h"], words: "Hot spot before", run: () => this.hotSpot(-1) },
      { group: "View", keys: ["q"], words: "Crosshair: numbers of the patch in the middle", run: () => this.#toggleCrosshair(), when: has },
      { group: "View", keys: ["i"], words: "Side panel", run: () => this.#togglePanel() },

      ...LAYERS.map((name) => ({ ...layer(name), keys: [keys[name]], words: words[name] })),
      { group: "Overlays", keys: [","], words: "Less opaque", run: () => overlays?.fade(-1) },
      { group: "Overlays", keys: ["."], words: "More opaque", run: () => overlays?.fade(1) },
      { group: "Overlays", keys: ["l"], words: "List of overlays", run: () => this.#toggleOverlays() },
      { group: "Overlays", keys: [" "], words: "Hold: bare tissue", run: () => overlays?.peek(true), release: () => overlays?.peek(false), when: () => has() && !drawing.drawing },

      { group: "Sign-off", keys: ["a"], words: "Agree with the software", run: () => this.#inPanel(() => signOff.agree()) },
      ...scores.map((score, place) => ({
        ...(place ? {} : { group: "Sign-off", shown: ["0", "1", "2", "3"], words: `You say ${scores.join(", ")}` }),
        keys: [score[0]], run: () => this.#inPanel(() => signOff.say(score)),
      })),
      { group: "Sign-off", keys: ["u"], words: "Unsure", run: () => this.#inPanel(() => signOff.beUnsure()) },
      { group: "Sign-off", keys: ["m"], words: "Comment", run: () => this.#inPanel(() => by("comment").focus()) },
      { group: "Sign-off", keys: ["Enter"], words: "Sign what is chosen (Ctrl Enter in the comment)", run: () => signOff.sign(), when: () => !drawing.drawing && signOff.choice !== null },

      { group: "Regions", keys: ["d"], words: "Draw what must not count", run: () => this.draw("exclude", true) },
      { group: "Regions", keys: ["s"], words: "Draw what alone counts", run: () => this.draw("score", true) },
      { group: "Regions", keys: [" "], words: "While drawing: a corner at the cross", run: () => this.#corner(), when: () => drawing.drawing },
      { group: "Regions", keys: ["Enter"], words: "While drawing: close the outline", run: () => drawing.finish(), when: () => drawing.drawing, evenOnButtons: true },
      { group: "Regions", keys: ["Delete", "Backspace"], words: "Delete the chosen region, or the last corner", run: () => (drawing.points.length ? drawing.undo() : drawing.remove()) },
      { group: "Regions", keys: ["Ctrl+z"], words: "Undo", run: () => drawing.undo() },

      { group: "Help", keys: ["?"], words: "This list", run: () => showHelp(), always: true },
      { group: "Help", keys: ["Escape"], words: "Leave what is going on", run: () => this.#escape(), always: true },
    ];
  }

  #corner() {
    this.reading.toggleCrosshair(true);
    this.drawing.addCorner();
  }

  #toggleCrosshair() {
    this.reading.toggleCrosshair();
    announce(this.reading.crosshair ? this.reading.inWords() : "Crosshair off", { quietly: true });
  }
}

const slideId = decodeURIComponent(location.pathname.replace(/^\/slide\//, "").replace(/\/$/, ""));

listenForTrouble();
document.title = `${slideId} · HER2 review`;
by("name").textContent = slideId;

try {
  const [run, slide] = await Promise.all([getRunAlone(), getSlide(slideId)]);
  await new SlidePage(run, slide).begin();
} catch (error) {
  complain(error);
  by("no-view").hidden = false;
  by("no-view").replaceChildren(element("p", {}, "This slide cannot be shown."), element("a", { href: "/" }, "Back to the worklist"));
}
