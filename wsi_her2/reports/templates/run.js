(function () {
  "use strict";
  var PER_PAGE = 50, MOST_PRINTED = 1000, TYPING_MS = 300;
  function by(id) { return document.getElementById(id); }
  function all(selector) { return Array.prototype.slice.call(document.querySelectorAll(selector)); }

  var data = JSON.parse(by("data").textContent), rows = data.rows, at = {};
  data.columns.forEach(function (name, place) { at[name] = place; });
  // Only the review pages, which serve this one below /run/, can show a slide.
  var served = /^https?:$/.test(location.protocol) && location.pathname.indexOf("/run/") === 0;
  var body = by("slides").tBodies[0], headers = all("#slides th[data-sort]");
  var collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // What is wanted stands in the address, so that reloading, Back and a bookmark keep it.
  var WANTED = ["q", "result", "review", "confidence", "cause", "outlier", "sort", "maps", "page"];
  var wanted = {}, shownHash = null, matching = [], printing = false, typing = 0;

  function fromHash() {
    var given = new URLSearchParams(location.hash.slice(1));
    wanted = {};
    WANTED.forEach(function (name) { wanted[name] = given.get(name) || ""; });
  }
  function toHash() {
    var given = new URLSearchParams();
    WANTED.forEach(function (name) { if (wanted[name]) given.set(name, wanted[name]); });
    return given.toString();
  }
  function want(changed, replace) {
    if (!("page" in changed)) wanted.page = "";
    Object.keys(changed).forEach(function (name) { wanted[name] = changed[name]; });
    var hash = "#" + toHash();
    if (replace) history.replaceState(null, "", hash); else history.pushState(null, "", hash);
    apply();
  }

  // Orders and searchable words are made once, when they are first needed.
  var orders = {}, words = [];
  function ascending(name, kind) {
    if (orders[name]) return orders[name];
    var column = at[name], order = rows.map(function (_, place) { return place; });
    if (kind === "text") {
      order.sort(function (a, b) { return collator.compare(rows[a][column], rows[b][column]) || a - b; });
    } else {
      order.sort(function (a, b) { return rows[a][column] - rows[b][column] || a - b; });
    }
    return (orders[name] = order);
  }
  function sorted() {
    var down = wanted.sort.charAt(0) === "-", name = down ? wanted.sort.slice(1) : wanted.sort;
    var header = headers.filter(function (other) { return other.dataset.sort === name; })[0];
    headers.forEach(function (other) { other.removeAttribute("aria-sort"); });
    if (!header) return rows.map(function (_, place) { return place; });
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    var column = at[name], order = ascending(name, header.dataset.kind);
    function unknown(place) { return rows[place][column] === null; }
    // What is not known comes last, whichever way is sorted.
    var known = order.filter(function (place) { return !unknown(place); });
    if (down) {
      // Equals keep the order of the run, so the list is not just turned round.
      var groups = [], last;
      known.forEach(function (place) {
        var same = groups.length && equal(rows[place][column], last);
        if (same) groups[groups.length - 1].push(place); else groups.push([place]);
        last = rows[place][column];
      });
      known = [].concat.apply([], groups.reverse());
    }
    return known.concat(order.filter(unknown));
  }
  function equal(a, b) { return typeof a === "string" ? collator.compare(a, b) === 0 : a === b; }
  function wordsOf(place) {
    if (words[place] === undefined) {
      var row = rows[place];
      words[place] = [
        row[at.slide], row[at.path], data.labels[row[at.result]], row[at.group],
        row[at.review] ? "review" : "", row[at.disagreement], row[at.reason]
      ].join("\n").toLowerCase();
    }
    return words[place];
  }
  function filter(order) {
    var terms = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    var span = /^([\d.]+)-([\d.]+)$/.exec(wanted.confidence);
    var causes = [];
    data.causes.forEach(function (cause, place) { if (cause[0] === wanted.cause) causes.push(place); });
    // An address that names no outliers of this run shows none.
    var unlike = data.outliers.filter(function (found) { return found[0] === wanted.outlier; })[0];
    return order.filter(function (place) {
      if (wanted.outlier && !(unlike && unlike[2].indexOf(place) >= 0)) return false;
      var row = rows[place], label = data.labels[row[at.result]], sure = row[at.confidence];
      if (wanted.result && label !== wanted.result) return false;
      if (wanted.review && !row[at.review]) return false;
      // The last span holds 1 as well.
      if (span && (sure === null || sure < +span[1] || (sure >= +span[2] && !(sure === 1 && +span[2] === 1)))) return false;
      if (wanted.cause && !row[at.causes].some(function (cause) { return causes.indexOf(cause) >= 0; })) return false;
      return terms.every(function (term) {
        // Reasons speak of other scores, so a score that is searched for is the slide's own.
        return /^[123]\+$/.test(term) ? label === term : wordsOf(place).indexOf(term) >= 0;
      });
    });
  }

  function element(name, text, kind) {
    var made = document.createElement(name);
    if (text) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }
  function cell(tr, kind, text) { return tr.appendChild(element("td", text, kind)); }
  function fixed(value, decimals) { return value === null ? "" : value.toFixed(decimals); }
  function drawMeasures(tr, row) {
    var review = cell(tr), sure = row[at.confidence];
    if (row[at.review]) {
      review.appendChild(element("span", "review", "flag"));
      review.appendChild(element("small", row[at.disagreement]));
    }
    cell(tr, "num", sure === null ? "" : Math.round(100 * sure) + " %");
    cell(tr, "num", fixed(row[at.h_score], 0));
    ["pct_0", "pct_1", "pct_2", "pct_3", "complete"].forEach(function (name) { cell(tr, "num", fixed(row[at[name]], 1)); });
  }
  function drawn(row) {
    var tr = document.createElement("tr"), map = cell(tr), slide = cell(tr, "s wrap"), result = cell(tr);
    if (row[at.heatmap] && maps()) {
      var picture = element("img");
      picture.loading = "lazy";
      picture.decoding = "async";
      picture.alt = "";
      picture.addEventListener("error", function () { picture.remove(); });
      picture.src = row[at.heatmap];
      map.appendChild(picture);
    }
    if (row[at.report]) slide.appendChild(element("a", row[at.slide])).href = row[at.report];
    else slide.appendChild(document.createTextNode(row[at.slide]));
    // The folder of the report is the slide's identifier as an address has it.
    if (served && row[at.report]) slide.appendChild(element("a", "view", "view")).href = "/slide/" + row[at.report].split("/")[0];
    slide.appendChild(element("small", row[at.path])).title = row[at.path];
    var chip = result.appendChild(element("span", data.labels[row[at.result]], "chip"));
    chip.style.background = data.colours[row[at.result]][0];
    chip.style.color = data.colours[row[at.result]][1];
    if (row[at.group]) result.appendChild(element("small", row[at.group]));
    if (row[at.reason]) cell(tr, "why wrap", row[at.reason]).colSpan = data.spanned;
    else drawMeasures(tr, row);
    cell(tr, "num", row[at.tumour] === null ? "" : row[at.tumour].toLocaleString("en"));
    cell(tr, "num", fixed(row[at.tissue], 1));
    return tr;
  }

  function maps() { return wanted.maps ? wanted.maps === "1" : data.maps; }
  function pages() { return Math.max(1, Math.ceil(matching.length / PER_PAGE)); }
  function page() { return Math.min(Math.max(parseInt(wanted.page, 10) || 1, 1), pages()); }
  function show() {
    var first = (page() - 1) * PER_PAGE, last = Math.min(matching.length, first + PER_PAGE);
    var shown = printing ? matching.slice(0, MOST_PRINTED) : matching.slice(first, last);
    var part = document.createDocumentFragment();
    shown.forEach(function (place) { part.appendChild(drawn(rows[place])); });
    body.replaceChildren(part);
    by("slides").classList.toggle("plain", !maps());
    by("maps").checked = maps();
    by("none").hidden = matching.length > 0;
    all("button[data-step]").forEach(function (button) {
      button.disabled = page() === (button.dataset.step < 0 ? 1 : pages());
    });
    by("below").hidden = pages() === 1;
    by("page").value = page();
    by("page").max = pages();
    by("pages").textContent = "of " + pages().toLocaleString("en");
    by("where").textContent = matching.length
      ? (first + 1).toLocaleString("en") + " to " + last.toLocaleString("en") + " of " + matching.length.toLocaleString("en")
      : "0 of " + rows.length.toLocaleString("en");
  }
  function showWanted() {
    var chips = document.createDocumentFragment();
    function chip(text, names) {
      var button = element("button", text + " \u00d7");
      button.type = "button";
      button.title = "Remove: " + text;
      button.addEventListener("click", function () {
        var changed = {};
        names.forEach(function (name) { changed[name] = ""; });
        want(changed);
        by("text").focus();
      });
      chips.appendChild(button);
    }
    var cause = data.causes.filter(function (known) { return known[0] === wanted.cause; })[0];
    if (wanted.review) chip("to review", ["review"]);
    if (wanted.confidence) chip("confidence " + wanted.confidence, ["confidence"]);
    if (wanted.cause) chip(cause ? cause[1] : "another reason", ["cause"]);
    var unlike = data.outliers.filter(function (found) { return found[0] === wanted.outlier; })[0];
    if (wanted.outlier) chip(unlike ? unlike[1] : "unlike the others", ["outlier"]);
    var narrowed = ["q", "result", "review", "confidence", "cause", "outlier"];
    if (narrowed.some(function (name) { return wanted[name]; })) chip("Show all", narrowed);
    by("wanted").replaceChildren(chips);
    by("result").value = wanted.result;
    if (by("text").value !== wanted.q) by("text").value = wanted.q;
  }
  function apply() {
    shownHash = location.hash;
    matching = filter(sorted());
    showWanted();
    show();
  }
  function arrive() {
    if (location.hash === shownHash) return;
    fromHash();
    apply();
  }

  headers.forEach(function (header) {
    var name = header.dataset.sort, button = element("button", header.textContent);
    button.type = "button";
    button.addEventListener("click", function () {
      var order = header.getAttribute("aria-sort"), down = order ? order === "ascending" : header.dataset.kind === "most";
      want({ sort: (down ? "-" : "") + name });
    });
    header.replaceChildren(button);
  });
  by("text").addEventListener("input", function () {
    clearTimeout(typing);
    // A step of Back is a search, not a letter.
    typing = setTimeout(function () { want({ q: by("text").value.trim() }, wanted.q !== ""); }, rows.length > 2000 ? TYPING_MS : 0);
  });
  by("text").addEventListener("keydown", function (event) {
    if (event.key !== "Enter") return;
    clearTimeout(typing);
    want({ q: by("text").value.trim() }, true);
    var link = body.querySelector("a");
    if (link) link.focus();
  });
  by("result").addEventListener("change", function () { want({ result: by("result").value }); });
  by("maps").addEventListener("change", function () { want({ maps: by("maps").checked ? "1" : "0", page: wanted.page }); });
  by("page").addEventListener("change", function () { want({ page: by("page").value }); });
  all("button[data-step]").forEach(function (button) {
    button.addEventListener("click", function () {
      want({ page: String(page() + Number(button.dataset.step)) });
      if (by("below").contains(button)) by("tools").scrollIntoView();
    });
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    event.preventDefault();
    by("text").focus();
    by("text").select();
  });
  window.addEventListener("hashchange", arrive);
  window.addEventListener("popstate", arrive);
  // Paper has no next page button.
  window.addEventListener("beforeprint", function () { printing = true; show(); });
  window.addEventListener("afterprint", function () { printing = false; show(); });
  by("tools").hidden = false;
  by("worklist").hidden = !served;
  if (served) by("worklist").lastElementChild.href = "/";
  arrive();
})();
