// Sliders in words: a screen reader would hear the number of the stop, for core widgets know no other text.
(() => {
  if (window.srkitAloud) return;
  let watch = window.srkitAloud = new MutationObserver(() => {});
  const text = (root, css) => {
    const found = root?.querySelector(css);
    return found?.getClientRects().length ? found.textContent.trim() : ""; // hidden: a slider without its number
  };
  document.addEventListener("focusin", ({ target }) => {
    const slider = target.closest(".srkit .widget-slider, .srkit .widget-hslider"), beside = slider?.nextElementSibling;
    if (!slider || !target.matches(".noUi-handle, .ui-slider-handle")) return;
    const set = (name, value) => { if (target.getAttribute(name) !== value) target.setAttribute(name, value); };
    const speak = () => {
      set("role", "slider");
      set("aria-label", text(slider, ".widget-label").replace("λ", "weight of") || "wipe");
      if (!target.hasAttribute("aria-valuenow")) set("aria-valuenow", "0"); // of ipywidgets 7, which says none
      set("aria-valuetext", [text(slider, ".widget-readout"), text(beside, ".srkit-aloud")].filter(Boolean).join(", "));
    };
    watch.disconnect();
    watch = new MutationObserver(speak);
    watch.observe(target, { attributes: true, attributeFilter: ["aria-valuenow", "aria-valuetext", "style"] });
    if (beside) watch.observe(beside, { subtree: true, childList: true, characterData: true });
    speak();
  });
})();
