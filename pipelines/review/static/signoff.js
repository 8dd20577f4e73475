// Sign-off: agree, overrule or be unsure. Each one is added to those before it.

import { postReview } from "./api.js";
import { chip, colourOf } from "./chip.js";
import { announce, by, complain, element, fill, memory } from "./elements.js";
import { resultOf } from "./format.js";

const SCORES = ["0", "1+", "2+", "3+"];
const SIGNS = { agree: "=", overrule: "\u2260", unsure: "?" };
const WORDS = { agree: "You agree", overrule: "You overrule", unsure: "You are unsure" };

export class SignOff {
  /** @param {object} slide @param {object} run @param {(review: object) => void} signed called with each new review */
  constructor(slide, run, signed) {
    this.slide = slide;
    this.signed = signed;
    this.called = slide.row.her2_score || slide.row.her2_group || null;
    this.choice = null;
    this.rescored = null;
    this.draftKey = `draft.${slide.row.slide_id}`;
    this.#fill(run);
    this.#restore();
    this.#show();
  }

  #fill(run) {
    by("overrule").replaceChildren(...SCORES.map((score) => {
      const button = element("button", {
        type: "button", class: "choice score", aria: { pressed: "false", label: `You say ${score}` }, data: { score },
        title: `You say ${score} (${score[0]})`, style: { "--ink": colourOf(this.slide, score) || "#8d99a5" },
      }, score);
      button.setAttribute("aria-keyshortcuts", score[0]);
      button.addEventListener("click", () => this.say(score));
      return button;
    }));
    by("reason").replaceChildren(element("option", { value: "" }, "no reason given"), ...(run.reasons ?? []).map((reason) => element("option", { value: reason }, reason)));
    by("reviewer").value = memory.read("reviewer", "") || run.reviewer || "";
    by("agree").addEventListener("click", () => this.agree());
    by("unsure").addEventListener("click", () => this.beUnsure());
    by("reviewer").addEventListener("change", () => memory.keep("reviewer", by("reviewer").value.trim()));
    for (const id of ["comment", "reason"]) by(id).addEventListener("input", () => this.#keepDraft());
    by("reason").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      by("sign-off").requestSubmit();
    });
    by("comment").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      by("sign-off").requestSubmit();
    });
    by("sign-off").addEventListener("submit", (event) => {
      event.preventDefault();
      this.sign();
    });
  }

  agree() { this.#choose({ verdict: "agree", score: this.slide.row.her2_score || null }); }
  beUnsure() { this.#choose({ verdict: "unsure", score: null }); }
  /** A score: it overrules, unless it is the software's own. */
  say(score) { this.#choose(score === this.called ? { verdict: "agree", score } : { verdict: "overrule", score }); }

  #choose(choice) {
    const same = this.choice?.verdict === choice.verdict && this.choice?.score === choice.score;
    this.choice = choice;
    this.#show();
    this.#keepDraft();
    (choice.verdict === "overrule" && !same ? by("reason") : by("sign")).focus();
    announce(`${this.#inWords()} Enter signs.`);
  }

  #inWords() {
    const said = resultOf(this.slide.row), { verdict, score } = this.choice;
    if (verdict === "agree") return `Software says ${said}, you agree.`;
    if (verdict === "overrule") return `Software says ${said}, you say ${score}.`;
    return `Software says ${said}, you are unsure.`;
  }

  /** What the software says with drawn regions; null where there are none. */
  setRescored(result) {
    this.rescored = result;
    this.#show();
  }

  /** Drop what is chosen but not signed. */
  drop() {
    if (!this.choice) return false;
    this.choice = null;
    this.#show();
    this.#keepDraft();
    by("sign-off").contains(document.activeElement) && document.activeElement.blur();
    announce("Choice dropped; nothing is signed");
    return true;
  }

  #show() {
    const { choice, slide } = this, { row } = slide;
    const yours = choice === null
      ? element("span", { class: "chip empty" }, "\u2013")
      : choice.verdict === "unsure" ? chip("?", "") : chip(choice.score ?? resultOf(row), colourOf(slide, choice.score) || row.colour);
    const differs = this.rescored !== null && this.rescored !== resultOf(row);
    const says = (label, shown, kind = "") => element("div", { class: `say ${kind}` }, element("span", {}, label), shown);
    fill(by("says"),
      says("Software says", chip(resultOf(row), row.colour, row.status === "scored" ? "" : "words")),
      differs ? says("with regions", chip(this.rescored, colourOf(slide, this.rescored), this.rescored === "no call" ? "words" : "")) : null,
      element("span", { class: "sign", aria: { hidden: "true" } }, choice === null ? "" : SIGNS[choice.verdict]),
      says(choice === null ? "You say" : WORDS[choice.verdict], yours, `yours ${choice?.verdict ?? ""}`),
      choice === null && !differs ? element("span", { class: "soft unsigned" }, "not signed") : null);
    by("agree").setAttribute("aria-pressed", String(choice?.verdict === "agree"));
    by("unsure").setAttribute("aria-pressed", String(choice?.verdict === "unsure"));
    for (const button of by("overrule").children) button.setAttribute("aria-pressed", String(choice !== null && choice.verdict !== "unsure" && choice.score === button.dataset.score));
    by("reason-line").hidden = choice === null || choice.verdict === "agree";
    by("sign").disabled = choice === null;
    by("sign").textContent = choice === null ? "Sign" : `Sign: ${choice.verdict === "unsure" ? "unsure" : choice.score ?? "agree"}`;
    by("sign-off").dataset.verdict = choice?.verdict ?? "";
  }

  /** The name to sign with; where there is none, it is asked for. */
  reviewer({ ask = true } = {}) {
    const name = by("reviewer").value.trim();
    if (!name && ask) {
      // The viewer takes the focus after a click on it.
      setTimeout(() => by("reviewer").focus());
      announce("Say who you are first: the name is kept with what you sign");
    }
    return name;
  }

  async sign() {
    const { choice } = this, reviewer = this.reviewer();
    if (!choice || !reviewer) return;
    memory.keep("reviewer", reviewer);
    by("sign").disabled = true;
    const reason = by("reason-line").hidden ? "" : by("reason").value;
    try {
      const review = await postReview(this.slide.row.slide_id, { ...choice, reason, comment: by("comment").value.trim(), reviewer });
      this.choice = null;
      by("comment").value = "";
      by("reason").value = "";
      this.#show();
      this.#keepDraft();
      document.activeElement?.blur();
      this.signed(review);
    } catch (error) {
      by("sign").disabled = false;
      complain(error);
    }
  }

  // What is chosen and written but not signed survives a look at another slide.
  #keepDraft() {
    const draft = { choice: this.choice, comment: by("comment").value, reason: by("reason").value };
    try {
      if (draft.choice || draft.comment) sessionStorage.setItem(this.draftKey, JSON.stringify(draft));
      else sessionStorage.removeItem(this.draftKey);
    } catch { /* Full, or switched off. */ }
  }

  #restore() {
    try {
      const draft = JSON.parse(sessionStorage.getItem(this.draftKey) ?? "null");
      if (!draft) return;
      this.choice = draft.choice;
      by("comment").value = draft.comment;
      by("reason").value = draft.reason;
    } catch { /* Nothing that can be used. */ }
  }
}
