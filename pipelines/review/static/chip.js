// A score, or another result, on its colour.

import { inkOn } from "./colour.js";
import { element } from "./elements.js";

const NEUTRAL = "#d9dee3";

export function chip(text, colour, kind = "") {
  const ground = colour || NEUTRAL;
  return element("span", { class: `chip ${kind}`, style: { background: ground, color: inkOn(ground) } }, text);
}

/** Colour of a score or class on a slide; empty where its model does not know it. */
export const colourOf = (slide, score) => slide.classes.find(({ name }) => name === score)?.colour ?? "";
