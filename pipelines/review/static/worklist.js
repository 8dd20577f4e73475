// The worklist: all slides of a run, filtered, sorted and opened. Only the rows that are seen are drawn.

import { getRun, slideAddress } from "./api.js";
import { chip } from "./chip.js";
import { announce, by, complain, element, listenForTrouble, settled, worklistOrder } from "./elements.js";
import { clock, count, fixed, resultOf, share, stainWords, verdictWords } from "./format.js";
import { obey, showHelp } from "./keyboard.js";

const SPARE_ROWS = 12, MOST_PRINTED = 2000, TYPING_MS = 120, KEEP_UP_MS = 10_000;
const RESULT_ORDER = ["0", "1+", "2+", "3+", "negative", "equivocal", "positive", "not assessable", "failed"];
const CONFIDENCES = [["low", "< 75\u00a0%", 0, 0.75], ["middle", "75\u201395\u00a0%", 0.75, 0.95], ["high", "\u2265 95\u00a0%", 0.95, Infinity]];
const REVIEWS = [["open", "not reviewed"], ["agree", "agreed"], ["overrule", "overruled"], ["unsure", "unsure"]];

const number = (name) => (row) => row[name];
const text = (read) => ({ kind: "text", of: read });
const COLUMNS = [
  { name: "slide", head: "Slide", ...text((row) => row.slide_id), draw: drawSlide },
  { name: "stain", head: "Stain", ...text((row) => stainWords(row.stain ?? row.modality)), draw: (row) => stainWords(row.stain ?? row.modality) },
  { name: "result", head: "Call", kind: "number", of: (row) => RESULT_ORDER.indexOf(resultOf(row)), draw: drawResult },
  { name: "flagged", head: "Flag", title: "Two ways to a call differ: look twice", kind: "number", most: true, of: (row) => (row.status === "scored" ? Number(row.flagged) : null), draw: drawFlag },
  { name: "confidence", head: "Conf.", title: "Confidence: share of resamples of the tissue with the same score", kind: "number", of: number("confidence"), draw: (row) => (row.confidence === null ? "" : share(row.confidence)) },
  { name: "h_score", head: "H", title: "H-score, 0 to 300", kind: "number", of: number("h_score"), draw: (row) => fixed(row.h_score, 0) },
  ...[["pct_0", "% 0"], ["pct_1", "% 1+"], ["pct_2", "% 2+"], ["pct_3", "% 3+"]].map(([name, head]) => (
    { name, head, title: "Share of the tumour", kind: "number", of: number(name), draw: (row) => drawShare(row[name], head.slice(2)) })),
  { name: "complete", head: "% compl.", title: "Counted cells with complete membrane staining", kind: "number", of: number("pct_complete_membrane"), draw: (row) => fixed(row.pct_complete_membrane, 1) },
  { name: "tumour", head: "Patches", title: "Patches of tumour", kind: "number", of: number("tumour_patches"), draw: (row) => count(row.tumour_patches) },
  { name: "tissue", head: "mm²", title: "Tissue", kind: "number", of: number("tissue_mm2"), draw: (row) => fixed(row.tissue_mm2, 1) },
  { name: "review", head: "Review", ...text((row) => (row.latest_review ? `${REVIEWS.findIndex(([kind]) => kind === row.latest_review.verdict)} ${row.latest_review.time}` : null)), draw: drawReview },
];
const SINGLE = ["q", "sort", "flagged"], MANY = ["call", "review", "confidence"];

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const state = { colours: {}, rows: [], shown: [], wanted: {}, at: 0, height: 32, printing: false, first: -1, last: -1 };

// --- what is wanted stands in the address

function readWanted() {
  const given = new URLSearchParams(location.hash.slice(1)), wanted = {};
  for (const name of SINGLE) wanted[name] = given.get(name) ?? "";
  for (const name of MANY) wanted[name] = new Set((given.get(name) ?? "").split(",").filter(Boolean));
  wanted.at = given.get("at") ?? "";
  state.wanted = wanted;
}

function address({ at = "" } = {}) {
  const given = new URLSearchParams(), { wanted } = state;
  for (const name of SINGLE) if (wanted[name]) given.set(name, wanted[name]);
  for (const name of MANY) if (wanted[name].size) given.set(name, [...wanted[name]].join(","));
  if (at) given.set("at", at);
  const said = given.toString();
  return said ? `#${said}` : "";
}

function want(changed, { replace = false } = {}) {
  Object.assign(state.wanted, changed);
  const hash = address() || location.pathname;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  state.at = 0;
  by("table").scrollTop = 0;
  apply();
}

// --- which rows, in which order

const reviewOf = (row) => row.latest_review?.verdict ?? "open";
const confidenceOf = (row) => CONFIDENCES.find(([, , low, high]) => row.confidence !== null && row.confidence >= low && row.confidence < high)?.[0] ?? "";

const FACETS = {
  call: { of: resultOf, title: "Call" },
  review: { of: reviewOf, title: "Review" },
  confidence: { of: confidenceOf, title: "Confidence" },
};

function wordsOf(row) {
  row.words ??= [row.slide_id, row.name, row.case, row.reason, resultOf(row), row.her2_group, row.disagreement, stainWords(row.stain ?? row.modality),
    row.latest_review?.reviewer, row.flagged ? "flagged" : ""].filter(Boolean).join("\n").toLowerCase();
  return row.words;
}

/** Whether a row passes all filters but one. */
function passes(row, terms, but = "") {
  const { wanted } = state;
  if (wanted.flagged && but !== "flagged" && !row.flagged) return false;
  for (const [name, { of }] of Object.entries(FACETS)) {
    if (name !== but && wanted[name].size && !wanted[name].has(of(row))) return false;
  }
  // Reasons speak of other scores, so a score that is searched for is the slide's own.
  return terms.every((term) => (/^[123]\+$/.test(term) ? resultOf(row) === term : wordsOf(row).includes(term)));
}

const terms = () => state.wanted.q.toLowerCase().split(/\s+/).filter(Boolean);

function sorted(rows) {
  const { sort } = state.wanted, down = sort.startsWith("-"), column = COLUMNS.find(({ name }) => name === sort.replace(/^-/, ""));
  if (!column) return rows;
  const keyed = rows.map((row, place) => ({ row, place, key: column.of(row) }));
  const turn = down ? -1 : 1;
  const compare = column.kind === "text" ? collator.compare : (a, b) => a - b;
  keyed.sort((a, b) => {
    const unknown = Number(a.key === null || a.key === undefined) - Number(b.key === null || b.key === undefined);
    // What is not known comes last, whichever way is sorted.
    if (unknown) return unknown;
    return (a.key === null || a.key === undefined ? 0 : turn * compare(a.key, b.key)) || a.place - b.place;
  });
  return keyed.map(({ row }) => row);
}

function apply() {
  const searched = terms();
  state.shown = sorted(state.rows.filter((row) => passes(row, searched)));
  worklistOrder.keep(state.shown.map((row) => row.slide_id), address());
  const { wanted } = state;
  if (by("text").value !== wanted.q) by("text").value = wanted.q;
  by("clear").hidden = !address().replace(/^#sort=[^&]*$/, "");
  for (const head of by("heads").children) {
    const name = wanted.sort.replace(/^-/, "");
    if (head.dataset.name === name) head.setAttribute("aria-sort", wanted.sort.startsWith("-") ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  drawFacets(searched);
  by("none").hidden = state.shown.length > 0;
  const all = state.rows.length, reviewed = state.shown.filter((row) => row.latest_review).length;
  by("counts").textContent = `${state.shown.length === all ? `${count(all)} slides` : `${count(state.shown.length)} of ${count(all)} slides`}, ${count(reviewed)} reviewed`;
  if (wanted.at) {
    const at = state.shown.findIndex((row) => row.slide_id === wanted.at);
    wanted.at = "";
    if (at >= 0) state.at = at;
    drawRows({ again: true });
    goTo(state.at, { centre: true });
    return;
  }
  drawRows({ again: true });
}

// --- filters

function drawFacets(searched) {
  const groups = Object.entries(FACETS).map(([name, { of, title }]) => {
    const counts = new Map();
    for (const row of state.rows) if (passes(row, searched, name)) counts.set(of(row), (counts.get(of(row)) ?? 0) + 1);
    return element("fieldset", { class: "facet" }, element("legend", {}, title), choices(name, counts).map(([value, words, colour]) => {
      const chosen = state.wanted[name].has(value), number = counts.get(value) ?? 0;
      const button = element("button", { type: "button", class: "toggle", aria: { pressed: String(chosen) }, data: { facet: name, value } },
        colour ? element("span", { class: "swatch", style: { "--ink": colour } }) : null, words, element("small", {}, count(number)));
      button.addEventListener("click", () => toggle(name, value));
      return button;
    }));
  });
  const flagged = state.rows.filter((row) => row.flagged && passes(row, searched, "flagged")).length;
  const flag = element("button", { type: "button", class: "toggle", id: "only-flagged", aria: { pressed: String(Boolean(state.wanted.flagged)) }, title: "Flagged only (F)" }, "flagged", element("small", {}, count(flagged)));
  flag.addEventListener("click", toggleFlagged);
  groups.push(element("fieldset", { class: "facet", aria: { label: "Flag" } }, flag));
  const had = document.activeElement?.closest?.(".facet .toggle"), { facet, value } = had?.dataset ?? {};
  by("facets").replaceChildren(...groups);
  // Drawing the buttons anew must not take the focus from whoever pressed one.
  if (had) (facet ? by("facets").querySelector(`[data-facet="${facet}"][data-value="${CSS.escape(value)}"]`) : by("only-flagged"))?.focus();
}

function choices(name, counts) {
  if (name === "review") return REVIEWS.filter(([kind]) => counts.has(kind) || state.wanted.review.has(kind) || kind === "open");
  if (name === "confidence") return CONFIDENCES.map(([kind, words]) => [kind, words]);
  const known = [...new Set([...counts.keys(), ...state.wanted.call])];
  known.sort((a, b) => RESULT_ORDER.indexOf(a) - RESULT_ORDER.indexOf(b));
  return known.map((result) => [result, result, state.rows.find((row) => resultOf(row) === result && row.status === "scored")?.colour]);
}

function toggle(name, value) {
  const chosen = new Set(state.wanted[name]);
  if (!chosen.delete(value)) chosen.add(value);
  want({ [name]: chosen });
}

const toggleFlagged = () => want({ flagged: state.wanted.flagged ? "" : "1" });

function clear() {
  want({ q: "", flagged: "", call: new Set(), review: new Set(), confidence: new Set() });
  announce("All slides");
}

// --- rows

function drawSlide(row, place) {
  return [
    element("a", { href: slideAddress(row.slide_id), tabIndex: place === state.at ? 0 : -1, class: "name" }, row.slide_id),
    row.viewable ? null : element("span", { class: "gone", title: "The slide's file cannot be read: its numbers can" }, "no file"),
  ];
}

function drawResult(row) {
  const result = resultOf(row);
  if (row.status !== "scored") return element("span", { class: "chip plain" }, result);
  return chip(result, row.colour);
}

function drawFlag(row) {
  return row.flagged ? element("span", { class: "flag", title: row.disagreement }, "look twice") : "";
}

// A line as long as the share, in the colour of its class: a column of them is read faster than its figures.
function drawShare(value, score) {
  if (value === null) return "";
  return [fixed(value, 1), element("span", { class: "share", style: { width: `calc((100% - 1rem) * ${value / 100})`, background: state.colours[score] ?? "#8d99a5" } })];
}

function drawReview(row) {
  const { latest_review: last } = row;
  if (!last) return element("span", { class: "soft" }, "not reviewed");
  const when = new Date(last.time), day = { day: "numeric", month: "short", ...(when.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" }) };
  return element("span", { class: `verdict ${last.verdict}`, title: `${last.reviewer}, ${clock(last.time)}` },
    verdictWords(last.verdict), " ",
    last.verdict === "overrule" ? chip(last.score, state.colours[last.score], "small") : null,
    element("small", {}, ` ${last.reviewer}`, element("span", { class: last.verdict === "overrule" ? "wide-only" : "" }, `, ${when.toLocaleDateString("en-GB", day)}`)));
}

function drawRow(row, place) {
  const why = row.status === "scored" ? null : row.reason;
  const cells = [];
  for (let at = 0; at < COLUMNS.length; at += 1) {
    const { name, kind, draw } = COLUMNS[at];
    if (why && name === "flagged") {
      // The reason takes the place of the figures that there are none of.
      const span = COLUMNS.findIndex(({ name: other }) => other === "tumour") - at;
      cells.push(element("td", { class: "why", colSpan: span, title: why }, why));
      at += span - 1;
      continue;
    }
    cells.push(element("td", { class: `${name} ${kind}` }, draw(row, place)));
  }
  const tr = element("tr", { class: place === state.at ? "here" : "", data: { place } }, cells);
  tr.setAttribute("aria-rowindex", place + 2);
  return tr;
}

function drawRows({ again = false } = {}) {
  const table = by("table"), { height, shown } = state;
  const seen = Math.ceil(table.clientHeight / height), top = Math.floor(table.scrollTop / height);
  let first = Math.max(0, top - SPARE_ROWS), last = Math.min(shown.length, top + seen + SPARE_ROWS);
  if (state.printing) [first, last] = [0, Math.min(shown.length, MOST_PRINTED)];
  if (!again && first === state.first && last === state.last) return;
  Object.assign(state, { first, last });
  const part = document.createDocumentFragment();
  const space = (rows) => element("tr", { class: "space", aria: { hidden: "true" } }, element("td", { colSpan: COLUMNS.length, style: { height: `${rows * height}px` } }));
  if (first > 0 && !state.printing) part.append(space(first));
  for (let place = first; place < last; place += 1) part.append(drawRow(shown[place], place));
  if (last < shown.length && !state.printing) part.append(space(shown.length - last));
  const focused = by("rows").contains(document.activeElement);
  by("rows").replaceChildren(part);
  by("slides").setAttribute("aria-rowcount", shown.length + 1);
  if (focused) linkAt(state.at)?.focus({ preventScroll: true });
}

const linkAt = (place) => by("rows").querySelector(`tr[data-place="${place}"] a`);

function goTo(place, { centre = false } = {}) {
  const { shown, height } = state, table = by("table");
  if (!shown.length) return;
  state.at = Math.min(Math.max(place, 0), shown.length - 1);
  const head = by("heads").offsetHeight, top = state.at * height, room = table.clientHeight - head;
  if (centre && (top < table.scrollTop || top + height > table.scrollTop + room)) table.scrollTop = top - room / 2;
  else if (top < table.scrollTop) table.scrollTop = top;
  else if (top + height > table.scrollTop + room) table.scrollTop = top + height - room;
  drawRows({ again: true });
  linkAt(state.at)?.focus({ preventScroll: true });
}

function open() {
  const row = state.shown[state.at];
  if (!row) return;
  remember(row.slide_id);
  location.assign(slideAddress(row.slide_id));
}

// Back leads to the row that was opened.
const remember = (slideId) => history.replaceState(null, "", address({ at: slideId }));

// --- page

// A run that is going on fills its list.
function keepUp() {
  setInterval(() => { if (!by("running").hidden && !document.hidden) load().catch(complain); }, KEEP_UP_MS);
}

function drawHeads() {
  by("heads").replaceChildren(...COLUMNS.map(({ name, head, title, kind, most }) => {
    const button = element("button", { type: "button", title: title ?? "" }, head);
    button.addEventListener("click", () => {
      const { sort } = state.wanted, down = sort.replace(/^-/, "") === name ? !sort.startsWith("-") : Boolean(most);
      want({ sort: (down ? "-" : "") + name });
    });
    return element("th", { scope: "col", class: `${name} ${kind}`, data: { name } }, button);
  }));
}

function measure() {
  const probe = by("rows").querySelector("tr[data-place]");
  const height = probe?.getBoundingClientRect().height ?? 0;
  if (height && Math.abs(height - state.height) > 0.01) {
    state.height = height;
    drawRows({ again: true });
  }
}

async function load() {
  const run = await getRun();
  by("run-name").textContent = run.title;
  by("run-name").title = run.folder;
  document.title = `HER2 worklist · ${run.title}`;
  by("running").hidden = run.state !== "running";
  state.colours = run.colours ?? {};
  const at = state.shown[state.at]?.slide_id;
  state.rows = run.slides;
  apply();
  const again = state.shown.findIndex((row) => row.slide_id === at);
  if (again >= 0 && again !== state.at) {
    state.at = again;
    drawRows({ again: true });
  }
  measure();
}

function keys() {
  const page = () => Math.max(1, Math.floor(by("table").clientHeight / state.height) - 2);
  const results = ["0", "1+", "2+", "3+"];
  return [
    { group: "List", keys: ["/"], words: "Search", run: () => { by("text").focus(); by("text").select(); } },
    { group: "List", keys: ["j", "ArrowDown"], words: "Next row", run: () => goTo(linkAt(state.at) === document.activeElement ? state.at + 1 : state.at) },
    { group: "List", keys: ["k", "ArrowUp"], words: "Row before", run: () => goTo(state.at - 1) },
    { group: "List", keys: ["PageDown"], words: "A page down", run: () => goTo(state.at + page()) },
    { group: "List", keys: ["PageUp"], words: "A page up", run: () => goTo(state.at - page()) },
    { group: "List", keys: ["Home"], words: "First row", run: () => goTo(0) },
    { group: "List", keys: ["End"], words: "Last row", run: () => goTo(state.shown.length - 1) },
    { group: "List", keys: ["Enter"], words: "Open the slide", run: open },
    { group: "Filters", keys: ["f"], words: "Flagged only", run: toggleFlagged },
    { group: "Filters", keys: ["o"], words: "Not reviewed only", run: () => toggle("review", "open") },
    ...results.map((result) => ({ group: "Filters", keys: [result[0]], words: `Calls of ${result}`, run: () => toggle("call", result) })),
    { group: "Filters", keys: ["Escape"], words: "Leave the search; then show all", run: escape, always: true },
    { group: "Help", keys: ["?"], words: "This list", run: () => showHelp(), always: true },
  ];
}

function escape() {
  if (document.activeElement === by("text")) goTo(0);
  else if (!by("clear").hidden) clear();
}

function listen() {
  const search = settled(() => want({ q: by("text").value.trim() }, { replace: state.wanted.q !== "" }), TYPING_MS);
  by("text").addEventListener("input", search);
  by("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    if (by("text").value.trim() !== state.wanted.q) want({ q: by("text").value.trim() }, { replace: true });
    goTo(0);
  });
  by("clear").addEventListener("click", clear);
  by("table").addEventListener("scroll", () => requestAnimationFrame(() => drawRows()), { passive: true });
  by("rows").addEventListener("click", (event) => {
    const tr = event.target.closest("tr[data-place]");
    if (!tr) return;
    state.at = Number(tr.dataset.place);
    const link = event.target.closest("a");
    if (link) remember(state.shown[state.at].slide_id);
    else if (!getSelection().toString()) open();
  });
  by("rows").addEventListener("focusin", (event) => {
    const place = Number(event.target.closest("tr[data-place]")?.dataset.place);
    if (Number.isFinite(place) && place !== state.at) goTo(place);
  });
  window.addEventListener("resize", () => { measure(); drawRows({ again: true }); });
  for (const arrived of ["popstate", "hashchange"]) window.addEventListener(arrived, () => { readWanted(); apply(); });
  window.addEventListener("beforeprint", () => { state.printing = true; drawRows({ again: true }); });
  window.addEventListener("afterprint", () => { state.printing = false; drawRows({ again: true }); });
  // Another tab may have signed something meanwhile.
  document.addEventListener("visibilitychange", () => { if (!document.hidden) load().catch(complain); });
  window.addEventListener("pageshow", (event) => { if (event.persisted) load().catch(complain); });
}

listenForTrouble();
readWanted();
drawHeads();
listen();
obey(keys());
try {
  await load();
  keepUp();
  document.documentElement.dataset.ready = "true";
} catch (error) {
  complain(error);
}
