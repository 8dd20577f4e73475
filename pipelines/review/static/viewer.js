// A slide on the screen: its tiles, where the view is, how large it appears. Coordinates are pixels of level 0.

import { tileAddress } from "./api.js";
import { micrometres, times } from "./format.js";

const UM_PER_PIXEL_AT_1X = 10;
const NICE_UM = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
const BAR_MOST = 0.2, BAR_MOST_PX = 190;
const MOST_PIXELS_PER_PIXEL = 8;
const SLOW_S = 0.5;
const SAME_ZOOM = 1e-3;

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class SlideViewer {
  /**
   * @param {HTMLElement} holder fills it
   * @param {object} slide as the server describes it
   * @param {{label: string, navigator?: HTMLElement}} options
   */
  constructor(holder, slide, { label, navigator }) {
    this.slide = slide;
    this.holder = holder;
    this.listeners = [];
    refuseInlineStyle();
    this.osd = OpenSeadragon({
      element: holder,
      // Canvas rather than WebGL: it needs no graphics driver, cannot lose its context and looks the same everywhere.
      drawer: "canvas",
      tileSources: tileSource(slide),
      showNavigationControl: false,
      showNavigator: Boolean(navigator),
      navigatorId: navigator?.id,
      navigatorAutoFade: false,
      navigatorDisplayRegionColor: "#c8102e",
      animationTime: still.matches ? 0 : SLOW_S,
      springStiffness: 9,
      blendTime: 0,
      zoomPerScroll: 1.35,
      visibilityRatio: 0.15,
      minZoomImageRatio: 0.15,
      maxZoomPixelRatio: MOST_PIXELS_PER_PIXEL,
      imageLoaderLimit: 8,
      maxImageCacheCount: 600,
      imageSmoothingEnabled: true,
      // Who reads at 10x goes on reading at 10x when the panel closes.
      preserveImageSizeOnResize: true,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true, flickEnabled: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true, flickEnabled: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
    });
    // Keys belong to the page, which lists them all.
    this.osd.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    this.osd.canvas.setAttribute("role", "application");
    this.osd.canvas.setAttribute("aria-label", label);
    if (this.osd.navigator) quieten(this.osd.navigator);
    this.ready = new Promise((resolve) => this.osd.addOnceHandler("open", () => resolve(this)));
    this.osd.addHandler("update-viewport", () => this.#moved());
    // The viewer sets a zoom of its own right after this event, so the whole slide is fitted again with the next frame.
    this.osd.addHandler("resize", () => { this.refit = this.whole; });
  }

  get view() { return this.osd.viewport; }
  get isOpen() { return this.osd.world.getItemCount() > 0; }

  /** Call after every frame in which the view moved. */
  onMove(action) { this.listeners.push(action); }
  #moved() {
    if (!this.isOpen) return;
    if (this.refit) this.view.goHome(true);
    this.refit = false;
    this.whole = Math.abs(this.view.getZoom() / this.view.getHomeZoom() - 1) < SAME_ZOOM;
    for (const listener of this.listeners) listener();
  }

  get width() { return this.holder.clientWidth; }
  get height() { return this.holder.clientHeight; }

  /** Screen pixels for each pixel of level 0. */
  scale({ target = false } = {}) {
    return (this.view.getZoom(!target) * this.width) / this.slide.width;
  }
  /** Micrometres for each screen pixel; NaN where the slide does not say. */
  micronsPerPixel(options) { return this.slide.mpp ? this.slide.mpp / this.scale(options) : NaN; }
  magnification(options) { return UM_PER_PIXEL_AT_1X / this.micronsPerPixel(options); }

  setMagnification(magnification) {
    this.#zoomTo((magnification * this.slide.mpp) / UM_PER_PIXEL_AT_1X);
  }
  /** Screen pixels for each pixel of level 0, from now on. */
  #zoomTo(scale) {
    this.view.zoomTo((scale * this.slide.width) / this.width, null, still.matches);
    this.view.applyConstraints(still.matches);
  }
  zoomBy(factor) {
    this.view.zoomBy(factor, null, still.matches);
    this.view.applyConstraints(still.matches);
  }
  panBy(x, y) {
    this.view.panBy(this.view.deltaPointsFromPixels(new OpenSeadragon.Point(x, y)), still.matches);
    this.view.applyConstraints(still.matches);
  }
  fit() {
    this.view.goHome(still.matches);
  }
  rotateBy(degrees) {
    this.view.setRotation(this.view.getRotation() + degrees, still.matches);
  }

  /** Where the view is: centre and width in pixels of level 0, rotation in degrees. */
  place({ target = true } = {}) {
    const centre = this.view.getCenter(!target), unit = this.slide.width;
    return {
      x: centre.x * unit,
      y: centre.y * unit,
      w: this.width / this.scale({ target }),
      r: ((this.view.getRotation(!target) % 360) + 360) % 360,
    };
  }

  /** Go to a place; what it does not say stays as it is. */
  go({ x, y, w, r }, { immediately = false } = {}) {
    const at = still.matches || immediately, unit = this.slide.width;
    if (Number.isFinite(r)) this.view.setRotation(r, at);
    if (Number.isFinite(w) && w > 0) this.view.zoomTo(unit / w, null, at);
    if (Number.isFinite(x) && Number.isFinite(y)) this.view.panTo(new OpenSeadragon.Point(x / unit, y / unit), at);
  }

  /** Pixels of level 0 to CSS pixels of the holder, as `setTransform` takes it. */
  transform() {
    const angle = (this.view.getRotation(true) * Math.PI) / 180, scale = this.scale(), centre = this.view.getCenter(true);
    const [a, b] = [scale * Math.cos(angle), scale * Math.sin(angle)], unit = this.slide.width;
    const x = centre.x * unit, y = centre.y * unit;
    return { a, b, c: -b, d: a, e: this.width / 2 - a * x + b * y, f: this.height / 2 - b * x - a * y };
  }
  /** A point of the holder, CSS pixels, in pixels of level 0. */
  toSlide(x, y) {
    const { a, b, c, d, e, f } = this.transform(), size = a * d - b * c;
    return { x: (d * (x - e) - c * (y - f)) / size, y: (-b * (x - e) + a * (y - f)) / size };
  }
  /** Box of level-0 pixels that the view touches. */
  visible() {
    const corners = [[0, 0], [this.width, 0], [0, this.height], [this.width, this.height]].map(([x, y]) => this.toSlide(x, y));
    const xs = corners.map((corner) => corner.x), ys = corners.map((corner) => corner.y);
    const x = Math.min(...xs), y = Math.min(...ys);
    return { x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
  }
}

/** Keep the scale bar and the magnification of a viewer true. */
export function showScale(viewer, bar, label, magnification) {
  viewer.onMove(() => {
    const um = viewer.micronsPerPixel(), known = Number.isFinite(um);
    bar.hidden = !known;
    magnification.textContent = known ? times(viewer.magnification()) : "scale unknown";
    label.textContent = "";
    if (!known) return;
    const length = barLength(viewer);
    bar.style.width = `${length / um}px`;
    label.textContent = micrometres(length);
  });
}

function barLength(viewer) {
  const most = Math.min(BAR_MOST_PX * rootScale(), BAR_MOST * viewer.width) * viewer.micronsPerPixel();
  return NICE_UM.filter((nice) => nice <= most).at(-1) ?? NICE_UM[0];
}

/** Draw the scale bar into the picture itself: on paper that may be stretched to another size. */
export function drawScaleBar(context, viewer) {
  const um = viewer.micronsPerPixel();
  if (!Number.isFinite(um)) return;
  const length = barLength(viewer), [left, bottom] = [16, viewer.height - 16];
  context.fillStyle = "rgba(255,255,255,0.9)";
  context.fillRect(left - 8, bottom - 30, length / um + 16, 38);
  context.fillStyle = "#16212c";
  context.fillRect(left, bottom - 3, length / um, 3);
  context.font = "600 14px system-ui, sans-serif";
  context.fillText(micrometres(length), left, bottom - 10);
}

/** How much larger than on the smallest screen everything is drawn. */
export const rootScale = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 14;

function tileSource(slide) {
  const { width, height, tile_px: side, max_level: maxLevel } = slide;
  // Below the level that fits one tile there is nothing more to see.
  const above = Math.max(0, Math.ceil(Math.log2(Math.max(width, height) / side)));
  return {
    width,
    height,
    tileSize: side,
    tileOverlap: 0,
    minLevel: Math.max(0, maxLevel - above),
    maxLevel,
    getTileUrl: (level, x, y) => tileAddress(slide, level, x, y),
  };
}

// OpenSeadragon writes a style element for touch screens, which the page's policy refuses loudly. It does not where one
// stands there already, and an element of that name without a meaning will do.
function refuseInlineStyle() {
  const name = "data-openseadragon-mobile-css";
  if (document.querySelector(`style[${name}]`)) return;
  const inert = document.createElementNS("urn:inert", "style");
  inert.setAttribute(name, "true");
  document.head.append(inert);
}

// The navigator is for the mouse; its keys would do what the page's keys do.
function quieten(navigator) {
  for (const part of [navigator.canvas, navigator.element, navigator.container]) {
    part.removeAttribute("tabindex");
    part.tabIndex = -1;
  }
  navigator.element.setAttribute("aria-hidden", "true");
}
