// Show a page one slide at a time: arrow keys, space, page up and down; Escape shows the whole page.
document.addEventListener("DOMContentLoaded", () => {
  const breaks = document.querySelectorAll("hr.deck-break");
  if (!breaks.length) return;
  const section = breaks[0].closest("section");
  const slides = [[]];
  for (const node of [...section.children]) {
    if (node.querySelector("hr.deck-break") || node.matches("hr.deck-break")) slides.push([]);
    else slides[slides.length - 1].push(node);
  }
  let current = Math.min(Number(location.hash.slice(1)) || 0, slides.length - 1);
  const place = document.createElement("output");
  place.className = "deck-place";
  place.setAttribute("aria-live", "polite");
  document.body.append(place);

  function show(index) {
    current = Math.max(0, Math.min(index, slides.length - 1));
    slides.forEach((nodes, i) => nodes.forEach((node) => { node.hidden = i !== current; }));
    place.textContent = `${current + 1} / ${slides.length}`;
    history.replaceState(null, "", `#${current}`);
    window.scrollTo(0, 0);
  }

  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select, button, summary") || event.ctrlKey || event.metaKey) return;
    const step = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 }[event.key];
    if (event.key === "Escape") {
      const deck = document.body.classList.toggle("deck");
      if (deck) show(current);
      else slides.flat().forEach((node) => { node.hidden = false; });
    } else if (step && document.body.classList.contains("deck")) {
      event.preventDefault();
      show(current + step);
    }
  });
  document.body.classList.add("deck");
  show(current);
});
