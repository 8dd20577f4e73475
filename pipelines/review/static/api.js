// What the server is asked, and how its binary answers are read.

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Look whether `wsi-her2 view` still runs, then try again.");
  }
  if (response.ok) return response;
  let said = "";
  try {
    said = (await response.json()).error ?? "";
  } catch { /* Not JSON: the status must do. */ }
  throw new Error(said || `The server refused ${path} (${response.status} ${response.statusText}).`);
}

const json = async (path, options) => (await answer(path, options)).json();
const send = (method, path, body) =>
  json(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const at = (slideId, rest = "") => `/api/slides/${encodeURIComponent(slideId)}${rest}`;

export const getRun = () => json("/api/run");
/** What is known of the run, without its slides. */
export const getRunAlone = () => json("/api/run?slides=no");
export const getSlide = (slideId) => json(at(slideId));
export const getRegions = (slideId) => json(at(slideId, "/regions"));
export const postReview = (slideId, review) => send("POST", at(slideId, "/reviews"), review);
export const postRescore = (slideId, regions) => send("POST", at(slideId, "/rescore"), { regions });
export const putDrawn = (slideId, regions, reviewer) => send("PUT", at(slideId, "/drawn"), { regions, reviewer });
/** A tile; its address names the version of the slide, so that a browser may keep it for good. */
export const tileAddress = (slide, level, x, y) => at(slide.row.slide_id, `/tiles/${level}/${x}_${y}.jpg?v=${slide.tile_version}`);
export const tissueAddress = (slideId) => at(slideId, "/tissue.png");
export const overviewAddress = (slideId) => at(slideId, "/overview.jpg");
export const slideAddress = (slideId) => `/slide/${encodeURIComponent(slideId)}`;
export const reportAddress = (slideId) => `/report/${encodeURIComponent(slideId)}`;
export const fileAddress = (slideId, name) => `/files/${encodeURIComponent(slideId)}/${name}`;

/** All patches of a slide; `probabilities` has a row of `classes.length` for each. */
export async function getPatches(slideId) {
  const buffer = await (await answer(at(slideId, "/patches"))).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const { n, classes } = header;
  let place = 4 + length;
  const take = (Kind, size) => {
    const taken = new Kind(buffer, place, size);
    place += taken.byteLength;
    return taken;
  };
  return {
    ...header,
    xy: take(Int32Array, 2 * n),
    tissue: take(Float32Array, n),
    probabilities: take(Float32Array, n * classes.length),
    label: take(Uint8Array, n),
    reason: take(Uint8Array, n),
  };
}

/** Cells in a box of level-0 pixels. */
export async function getCells(slideId, { x, y, width, height }, signal) {
  const box = new URLSearchParams({ x, y, width, height });
  const buffer = await (await answer(at(slideId, `/cells?${box}`), { signal })).arrayBuffer();
  const view = new DataView(buffer), total = view.getUint32(0, true), n = view.getUint32(4, true);
  return {
    total,
    n,
    xy: new Int32Array(buffer, 8, 2 * n),
    her2Class: new Uint8Array(buffer, 8 + 8 * n, n),
    tumour: new Uint8Array(buffer, 8 + 9 * n, n),
  };
}
