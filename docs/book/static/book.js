// Equations that are wider than their line are drawn smaller, down to two thirds; what is still too wide scrolls.
// The contents that a button opens above the page close when an entry is chosen.

const SMALLEST = 2 / 3;

function room(equation) {
  const line = equation.closest("p, li, dd, td, th, div, figcaption, summary");
  const style = getComputedStyle(line);
  return line.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

function fit() {
  const drawings = [...document.querySelectorAll("mjx-container > svg")];
  for (const { style, dataset } of drawings) {
    Object.assign(style, { width: "", height: "" });
    style.verticalAlign = dataset.depth ??= style.verticalAlign;
  }
  const sizes = drawings.map((drawing) => {
    const { width, height } = drawing.getBoundingClientRect(); // 0 in what is folded
    return { width, height, share: width ? room(drawing.parentElement) / width : 1 };
  });
  drawings.forEach(({ style, dataset, parentElement }, i) => {
    const { width, height, share } = sizes[i], scale = Math.max(SMALLEST, share);
    parentElement.classList.toggle("scrolls", share < SMALLEST);
    if (scale >= 1) return;
    Object.assign(style, { width: `${scale * width}px`, height: `${scale * height}px` });
    style.verticalAlign = `${scale * parseFloat(dataset.depth)}ex`;
  });
}

addEventListener("load", () => {
  globalThis.MathJax?.startup?.promise.then(() => {
    fit();
    addEventListener("resize", fit);
    document.addEventListener("toggle", fit, true); // a fold that opens
  });
});

document.querySelector("#pst-secondary-sidebar-modal")?.addEventListener("click", (event) => {
  if (event.target.closest("a")) event.currentTarget.close();
});
