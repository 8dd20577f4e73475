// Numbers, times and names as people read them.

const UNKNOWN = "\u2013";

export const fixed = (value, decimals) => (value === null || value === undefined ? "" : value.toFixed(decimals));
export const percent = (value, decimals = 1) => (value === null || value === undefined ? UNKNOWN : `${value.toFixed(decimals)}\u00a0%`);
export const share = (value, decimals = 0) => (value === null || value === undefined ? UNKNOWN : `${(100 * value).toFixed(decimals)}\u00a0%`);
export const count = (value) => (value === null || value === undefined ? "" : value.toLocaleString("en"));
export const plural = (number, noun, many = `${noun}s`) => `${count(number)} ${number === 1 ? noun : many}`;

/** A time as the reader's own clock shows it, to the minute. */
export function clock(iso) {
  const time = new Date(iso);
  return Number.isNaN(time.getTime())
    ? iso
    : time.toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

/** A length of the slide: um below a millimetre, mm from there on. */
export const micrometres = (um) => (um >= 1000 ? `${+(um / 1000).toPrecision(3)}\u00a0mm` : `${+um.toPrecision(3)}\u00a0µm`);

/** A magnification: 10 µm a pixel is 1x. */
export function times(magnification) {
  if (!Number.isFinite(magnification)) return UNKNOWN;
  return `${magnification >= 10 ? Math.round(magnification) : +magnification.toPrecision(2)}×`;
}

const STAINS = { her2: "HER2", he: "H&E", ihc: "IHC" };
export const stainWords = (stain) => STAINS[stain] ?? stain ?? "";
export const statusWords = (status) => ({ scored: "scored", not_assessable: "not assessable", failed: "failed" })[status] ?? status;

/** What stands for a slide's result: its score, else its group, else why there is none. */
export const resultOf = (row) => row.her2_score || row.her2_group || statusWords(row.status);

const VERDICTS = { agree: "agreed", overrule: "overruled", unsure: "unsure" };
export const verdictWords = (verdict) => VERDICTS[verdict] ?? verdict;
export const className = (name) => (name === "other" ? "not tumour" : name);
