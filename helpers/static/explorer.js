(root => {
  const inputs = [...root.querySelectorAll(".tml-control input")];
  const frames = [...root.querySelectorAll("[data-frame]")];
  const show = () => {
    let chosen = 0;
    for (const input of inputs) {
      const labels = JSON.parse(input.dataset.labels);
      const label = labels[input.value];
      chosen = chosen * labels.length + Number(input.value);
      input.setAttribute("aria-valuetext", label);
      input.style.setProperty("--tml-at", labels.length > 1 ? input.value / (labels.length - 1) : 1);
      input.parentElement.querySelector("output").textContent = label;
    }
    frames.forEach((frame, i) => { frame.hidden = i !== chosen; });
  };
  inputs.forEach(input => input.addEventListener("input", show));
  show();
})(document.currentScript.parentElement);
