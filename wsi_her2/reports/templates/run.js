(function () {
  "use strict";
  var PER_PAGE = 50;
  function by(id) { return document.getElementById(id); }
  var body = by("slides").tBodies[0], text = by("text"), kind = by("kind");
  var rows = Array.prototype.slice.call(body.rows), matching = rows, page = 0, printing = false;
  // Ten thousand rows are kept out of the document and shown a page at a time.
  body.textContent = "";
  rows.forEach(function (row, index) { row.place = index; });

  function words(row) {
    if (row.words === undefined) row.words = row.cells[1].textContent.toLowerCase();
    return row.words;
  }
  function show() {
    var pages = Math.max(1, Math.ceil(matching.length / PER_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    var shown = printing ? matching : matching.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    body.textContent = "";
    var part = document.createDocumentFragment();
    shown.forEach(function (row) { part.appendChild(row); });
    body.appendChild(part);
    by("none").hidden = matching.length > 0;
    by("back").disabled = page === 0;
    by("next").disabled = page === pages - 1;
    var first = page * PER_PAGE + 1, last = Math.min(matching.length, first + PER_PAGE - 1);
    by("where").textContent = matching.length ? first + " to " + last + " of " + matching.length : "0 of " + rows.length;
  }
  function filter() {
    var wanted = text.value.trim().toLowerCase(), label = kind.value;
    matching = rows.filter(function (row) {
      return (!label || row.dataset.k === label) && (!wanted || words(row).indexOf(wanted) >= 0);
    });
    page = 0;
    show();
  }
  function value(row, column, how) {
    var cell = row.cells[column];
    if (how === "rank") return Number(cell.dataset.v);
    // The cell of a slide holds its path and reason too.
    if (how === "text") return cell.firstChild.textContent;
    var shown = cell.textContent.trim();
    return shown === "" ? NaN : parseFloat(shown);
  }
  function empty(v) { return v === "" || v !== v; }
  var collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  function sort(header, column, how) {
    var up = header.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
    Array.prototype.forEach.call(header.parentNode.cells, function (other) { other.removeAttribute("aria-sort"); });
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    var keyed = rows.map(function (row) { return [value(row, column, how), row]; });
    keyed.sort(function (a, b) {
      // What is not known comes last, whichever way is sorted; equals keep the order of the run.
      if (empty(a[0]) || empty(b[0])) return empty(a[0]) - empty(b[0]) || a[1].place - b[1].place;
      var order = how === "text" ? collator.compare(a[0], b[0]) : a[0] - b[0];
      return sign * order || a[1].place - b[1].place;
    });
    rows = keyed.map(function (pair) { return pair[1]; });
    filter();
  }
  Array.prototype.forEach.call(by("slides").tHead.rows[0].cells, function (header, column) {
    var how = header.dataset.sort;
    if (!how) return;
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", function () { sort(header, column, how); });
    header.replaceChildren(button);
  });
  text.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  by("back").addEventListener("click", function () { page -= 1; show(); });
  by("next").addEventListener("click", function () { page += 1; show(); });
  // Paper has no next page button.
  window.addEventListener("beforeprint", function () { printing = true; show(); });
  window.addEventListener("afterprint", function () { printing = false; show(); });
  by("tools").hidden = false;
  filter();
})();
