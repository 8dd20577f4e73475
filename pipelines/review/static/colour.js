// Colours: which ink can be read on one, and a scale from little to much.

const DARK = [16, 24, 32], LIGHT = [255, 255, 255];

export const rgbOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
export const rgba = (hex, alpha) => `rgba(${rgbOf(hex).join(",")},${alpha})`;

/** Whichever of near-black and white is easier to read on a colour. */
export function inkOn(hex) {
  const ground = rgbOf(hex);
  return contrast(DARK, ground) >= contrast(LIGHT, ground) ? "#101820" : "#ffffff";
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const unit = value / 255;
    return unit <= 0.04045 ? unit / 12.92 : ((unit + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(first, second) {
  const [low, high] = [luminance(first), luminance(second)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

// Lightness rises all the way and hue runs from blue to yellow, so that the order holds for every kind of colour vision
// and on a print without colour.
const STOPS = [[38, 20, 96], [44, 84, 142], [46, 142, 142], [124, 194, 106], [252, 236, 96]];

/** The scale in 256 steps, as bytes: r, g, b, r, g, b ... */
export const SCALE = sequentialScale();

function sequentialScale() {
  const scale = new Uint8ClampedArray(256 * 3);
  const stops = STOPS.map(toLab);
  for (let step = 0; step < 256; step += 1) {
    const at = (step / 255) * (stops.length - 1);
    const from = Math.min(stops.length - 2, Math.floor(at)), part = at - from;
    const mixed = stops[from].map((value, axis) => value + part * (stops[from + 1][axis] - value));
    scale.set(fromLab(mixed), 3 * step);
  }
  return scale;
}

/** The scale as a CSS gradient. */
export function scaleGradient() {
  const steps = Array.from({ length: 9 }, (_, place) => {
    const at = 3 * Math.round((place / 8) * 255);
    return `rgb(${SCALE[at]},${SCALE[at + 1]},${SCALE[at + 2]})`;
  });
  return `linear-gradient(to right, ${steps.join(",")})`;
}

// Oklab (Björn Ottosson), in which equal steps look equal.
function toLab(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const unit = value / 255;
    return unit <= 0.04045 ? unit / 12.92 : ((unit + 0.055) / 1.055) ** 2.4;
  });
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromLab([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((linear) => 255 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055));
}
