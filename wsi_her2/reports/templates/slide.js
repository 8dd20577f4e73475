(function () {
  "use strict";
  function linkPlaces() {
    // Only the review pages can show a place; opened as a file the page has its coordinates.
    var served = /^https?:$/.test(location.protocol) && /^\/(?:report|run|files)\/([^\/]+)(?:\/report\.html)?$/.exec(location.pathname);
    if (!served) return;
    var viewer = "/slide/" + served[1];
    Array.prototype.forEach.call(document.querySelectorAll("[data-side]"), function (place) {
      var side = Number(place.dataset.side), link = document.createElement("a");
      link.href = viewer + "#x=" + (Number(place.dataset.x) + Math.round(side / 2)) +
        "&y=" + (Number(place.dataset.y) + Math.round(side / 2)) + "&w=" + 3 * side;
      link.title = "Show this place on the slide";
      while (place.firstChild) link.appendChild(place.firstChild);
      place.appendChild(link);
    });
    var open = document.getElementById("open");
    open.href = viewer;
    open.hidden = false;
  }
  function bindTools() {
    var tools = document.getElementById("tools"), layer = document.getElementById("layer");
    if (!tools || !layer) return;
    var shown = document.getElementById("shown"), opacity = document.getElementById("opacity");
    function update() { layer.style.opacity = shown.checked ? opacity.value / 100 : 0; }
    shown.addEventListener("change", update);
    opacity.addEventListener("input", update);
    tools.hidden = false;
    // A browser may restore the controls of a reloaded page.
    update();
  }
  linkPlaces();
  bindTools();
})();
