(function () {
  "use strict";
  var tools = document.getElementById("tools"), layer = document.getElementById("layer");
  if (!tools || !layer) return;
  var shown = document.getElementById("shown"), opacity = document.getElementById("opacity");
  function update() { layer.style.opacity = shown.checked ? opacity.value / 100 : 0; }
  shown.addEventListener("change", update);
  opacity.addEventListener("input", update);
  tools.hidden = false;
  // A browser may restore the controls of a reloaded page.
  update();
})();
