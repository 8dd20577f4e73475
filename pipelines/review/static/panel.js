// The side panel: what the software says and why, what has been said before, and what changes with drawn regions.

import { reportAddress, tileAddress } from "./api.js";
import { chip, colourOf } from "./chip.js";
import { by, element, fill } from "./elements.js";
import { className, clock, count, fixed, percent, plural, resultOf, share, stainWords, statusWords, verdictWords } from "./format.js";

const THUMBNAIL_PX = 160;
const OTHER = "other";

export function showCall(slide) {
  const { row, words } = slide, scored = row.status === "scored";
  fill(by("call"), 
    element("div", { class: "call-head" },
      chip(resultOf(row), row.colour, scored ? "big" : "big words"),
      element("div", {},
        element("p", { class: "group" }, scored ? words.group : "No call"),
        scored && words.her2_low ? element("p", { class: "soft" }, words.her2_low) : null,
        scored ? element("p", { class: "soft figures" }, figures(row)) : null)),
    ...(row.flagged ? [element("p", { class: "flagged" }, element("strong", {}, "Look twice. "), words.second_opinion || "Two ways to a call differ.")] : []),
    ...(scored ? [] : [element("p", { class: "flagged" }, row.reason || "No reason is on record.")]),
  );
}

const figures = (row) => [
  row.confidence === null ? "" : `confidence ${share(row.confidence)}`,
  row.h_score === null ? "" : `H-score ${fixed(row.h_score, 0)}`,
].filter(Boolean).join(" · ");

export function showPercentages(slide) {
  const section = by("percentages"), entries = Object.entries(slide.percentages ?? {});
  section.hidden = entries.length === 0;
  fill(section, 
    element("h2", {}, "Of the tumour"),
    element("ul", { class: "bars" }, entries.map(([name, { value, low, high }]) => bar(name, value, low, high, colourOf(slide, name)))),
    element("p", { class: "soft small" }, counted(slide)),
  );
}

function bar(name, value, low, high, colour) {
  const known = low !== null && low !== undefined && high !== null && high !== undefined;
  return element("li", { class: "bar-row" },
    element("span", { class: "bar-name" }, className(name)),
    element("span", { class: "track" },
      element("span", { class: "fill-bar", style: { width: `${value}%`, background: colour || "#8d99a5" } }),
      known ? element("span", { class: "whisker", style: { left: `${low}%`, width: `${Math.max(0.4, high - low)}%` } }) : null),
    element("span", { class: "bar-value" }, percent(value)),
    element("span", { class: "bar-interval soft" }, known ? `${fixed(low, 0)}\u2013${fixed(high, 0)}` : ""));
}

function counted({ row, cells }) {
  const parts = [];
  if (row.tumour_patches !== null) parts.push(`${plural(row.tumour_patches, "patch", "patches")} of tumour`);
  if (cells.available) parts.push(plural(cells.count, "cell"));
  if (row.tissue_mm2 !== null) parts.push(`${fixed(row.tissue_mm2, 1)} mm² of tissue`);
  if (row.pct_complete_membrane !== null) parts.push(`${fixed(row.pct_complete_membrane, 1)} % of the cells with complete membrane`);
  return parts.join(" · ");
}

export function showReasons(slide) {
  const { words, row } = slide;
  const lines = [
    ["Rule", words.rule], ["Margin", words.margin], ["Confidence", words.confidence], ["Second opinion", row.flagged ? "" : words.second_opinion],
    ["Calibration", words.calibration], ["Sampled", words.sample], ["Regions", words.regions], ["Possible controls", words.controls],
    ["Scale", slide.mpp ? `${+slide.mpp.toPrecision(4)} µm/px, from ${slide.mpp_source}` : ""],
  ].filter(([, text]) => text);
  fill(by("reasons"), 
    element("h2", {}, slide.row.status === "scored" ? "Why" : "Slide"),
    element("dl", { class: "why" }, lines.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text)))),
    clauseTable(slide.clauses),
    element("details", {}, element("summary", {}, `Model: ${words.model_name ?? ""}`), element("ul", { class: "statements small" }, (words.model_statements ?? [words.model]).map((said) => element("li", {}, said)))),
    element("p", { class: "small" }, element("a", { href: reportAddress(row.slide_id) }, "Full report of this slide")),
  );
}

function clauseTable(clauses = []) {
  if (!clauses.length) return null;
  return element("details", {}, element("summary", {}, "What each score asks for"),
    element("ul", { class: "clauses small" }, clauses.map(({ score, condition, finding, fired }) =>
      element("li", { class: fired ? "fired" : "" }, element("strong", {}, score), element("span", {}, `${condition}. `, element("span", { class: "soft" }, finding))))));
}

export function showHistory(slide) {
  const { reviews } = slide;
  fill(by("history"), 
    element("h2", {}, `Reviews${reviews.length ? ` (${reviews.length})` : ""}`),
    reviews.length
      ? element("ol", { class: "reviews" }, reviews.map((review) => reviewLine(slide, review)))
      : element("p", { class: "soft small" }, "Nobody has signed this slide yet. Every sign-off is kept; a later one does not remove it."),
  );
}

function reviewLine(slide, review) {
  const said = review.verdict === "overrule"
    ? ["overruled ", chip(review.called || "no call", colourOf(slide, review.called), "small"), " to ", chip(review.score, colourOf(slide, review.score), "small")]
    : review.verdict === "agree"
      ? ["agreed with ", chip(review.called || review.score || statusWords(slide.row.status), colourOf(slide, review.called), "small")]
      : ["was unsure of ", chip(review.called || "no call", colourOf(slide, review.called), "small")];
  const notes = [ofEarlierResult(slide, review) ? "of an earlier result of this slide" : "", review.reason, review.comment, review.rescored ? `with drawn regions the software says ${review.rescored}` : ""].filter(Boolean);
  return element("li", {},
    element("div", {}, element("strong", {}, review.reviewer), " ", said),
    notes.length ? element("div", { class: "wrap" }, notes.join(" \u00b7 ")) : null,
    element("time", { class: "soft small", dateTime: review.time }, clock(review.time)));
}

// After another run with other settings the slide has another result, which nobody may have looked at yet.
const ofEarlierResult = ({ tile_version: now }, { fingerprint }) => Boolean(now && fingerprint && !fingerprint.startsWith(now));

/** The one line on top: who said what, and when. */
export function showState(slide) {
  const last = slide.reviews[0], state = by("state");
  state.className = `state ${last ? last.verdict : "open"}`;
  const score = last?.verdict === "overrule" ? ` to ${last.score}` : "";
  const earlier = last && ofEarlierResult(slide, last) ? " \u00b7 earlier result" : "";
  state.textContent = last ? `${verdictWords(last.verdict)}${score} \u00b7 ${last.reviewer}${earlier}` : "not reviewed";
  state.title = last ? clock(last.time) : "";
}

// --- with drawn regions

/**
 * What the software says with the drawn regions, beside what it said before.
 * @param {object[]} features @param {object|null} rescored what the server answered; null while it is asked
 */
export function showRescored(slide, features, rescored, { selection, remove, goTo }) {
  const section = by("redrawn");
  section.hidden = features.length === 0;
  if (section.hidden) {
    fill(section);
    return;
  }
  const before = slide.row, call = rescored?.call ?? null, now = call ? call.score || call.group : null;
  const changed = now !== null && now !== resultOf(before);
  section.classList.toggle("changed", changed);
  fill(section, 
    element("h2", {}, "With your regions"),
    rescored === null
      ? element("p", { class: "soft" }, "Scoring again ...")
      : element("div", { class: "old-new" },
        element("span", { class: "soft" }, "was"), chip(resultOf(before), before.colour), element("span", { aria: { hidden: "true" } }, "\u2192"),
        call ? chip(now, colourOf(slide, now), "big") : chip("no call", "", "words"),
        element("strong", {}, call === null ? "" : changed ? "the call changes" : "the call stands")),
    ...(rescored === null ? [] : outcome(slide, rescored)),
    element("ul", { class: "regions" }, features.map((feature, place) => regionLine(feature, place, place === selection, { remove, goTo }))),
  );
}

function outcome(slide, rescored) {
  const { call } = rescored;
  if (call === null) return [element("p", { class: "flagged" }, rescored.reason)];
  const rows = Object.entries(call.percentages).map(([name, { value }]) => {
    const before = slide.percentages?.[name]?.value ?? null, by = before === null ? null : value - before;
    return element("tr", {},
      element("th", { scope: "row" }, className(name)), element("td", {}, percent(before)), element("td", {}, percent(value)),
      element("td", { class: by !== null && Math.abs(by) >= 5 ? "much" : "soft" }, by === null ? "" : signed(by)));
  });
  const basis = [
    rescored.from ? `from ${rescored.from}` : "",
    rescored.cells ? plural(rescored.cells, "cell") : "",
    plural(rescored.tumour_patches, "patch", "patches") + " of tumour",
    call.confidence === null ? "" : `confidence ${share(call.confidence)}`,
    call.h_score === null ? "" : `H-score ${fixed(call.h_score, 0)}`,
  ].filter(Boolean).join(" \u00b7 ");
  return [
    element("table", { class: "change" },
      element("thead", {}, element("tr", {}, ["", "was", "now", "change"].map((text) => (text ? element("th", { scope: "col" }, text) : element("td", {}))))),
      element("tbody", {}, rows)),
    element("p", { class: "soft small" }, basis),
    call.explanation ? element("p", { class: "small" }, call.explanation) : null,
    rescored.note ? element("p", { class: "soft small" }, rescored.note) : null,
  ].filter(Boolean);
}

function signed(points) {
  const size = Math.abs(points).toFixed(1);
  return size === "0.0" ? size : `${points > 0 ? "+" : "\u2212"}${size}`;
}

function regionLine(feature, place, chosen, { remove, goTo }) {
  const kind = feature.properties?.name === "score" ? "score" : "exclude", words = kind === "score" ? "score only" : "excluded";
  const go = element("button", { type: "button", class: "quiet", title: "Show it" },
    element("span", { class: `swatch region-${kind}` }), `${place + 1}: ${words}`);
  const gone = element("button", { type: "button", class: "quiet", title: "Delete (Del)", aria: { label: `Delete region ${place + 1}` } }, "\u00d7");
  go.addEventListener("click", () => goTo(place));
  gone.addEventListener("click", () => remove(place));
  return element("li", { class: chosen ? "chosen" : "" }, go, gone);
}

// --- examples

/** Thumbnails of the surest patches of each class; a click leads there. */
export function showExamples(slide, goTo) {
  const section = by("examples"), names = slide.classes.map(({ name }) => name).filter((name) => name !== OTHER).concat(OTHER);
  const groups = names.map((name) => [name, slide.examples.filter((example) => example.class === name)]).filter(([, found]) => found.length);
  section.hidden = groups.length === 0;
  fill(section, element("h2", {}, "Surest patches"), ...groups.map(([name, found]) =>
    element("div", { class: "example-group" },
      element("h3", {}, element("span", { class: "swatch", style: { "--ink": colourOf(slide, name) } }), className(name)),
      element("div", { class: "thumbnails" }, found.map((example) => thumbnail(slide, example, goTo))))));
}

function thumbnail(slide, example, goTo) {
  const canvas = element("canvas", { width: THUMBNAIL_PX, height: THUMBNAIL_PX });
  const button = element("button", {
    type: "button", class: "thumbnail", title: `Go to x ${count(example.x)}, y ${count(example.y)}`,
    aria: { label: `Example of ${className(example.class)} at x ${example.x}, y ${example.y}: go there` },
  }, canvas);
  button.addEventListener("click", () => goTo(example));
  if (slide.viewable) whenSeen(canvas, () => drawPart(canvas, slide, example));
  return button;
}

let watcher = null;
const waiting = new WeakMap();

// Thumbnails wait until they are looked at: their tiles would come before those of the slide.
function whenSeen(canvas, draw) {
  watcher ??= new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      waiting.get(target)();
    }
  }, { rootMargin: "80px" });
  waiting.set(canvas, draw);
  watcher.observe(canvas);
}

/** Draw a square of the slide from the tiles of the level that shows it best. */
function drawPart(canvas, slide, { x, y, size_px0: size }) {
  const down = Math.max(0, Math.floor(Math.log2(size / canvas.width))), factor = 2 ** down, level = slide.max_level - down;
  const side = slide.tile_px, [left, top, part] = [x / factor, y / factor, size / factor];
  const context = canvas.getContext("2d"), zoom = canvas.width / part;
  for (let row = Math.floor(top / side); row * side < top + part; row += 1) {
    for (let column = Math.floor(left / side); column * side < left + part; column += 1) {
      const image = new Image();
      image.addEventListener("load", () => context.drawImage(
        image, (column * side - left) * zoom, (row * side - top) * zoom, image.naturalWidth * zoom, image.naturalHeight * zoom));
      image.src = tileAddress(slide, level, column, row);
    }
  }
}
