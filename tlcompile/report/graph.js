// Folds and unfolds regions. Python says every x and every distance; this adds heights up, as drawing.py does.
"use strict";

const HEAD = 36, ROUND = 6, EDGE = 12, PAGE = 1600;

function childrenOf(region) {
  return [...region.querySelectorAll(":scope > .inside > .node")];
}

// Place what is in a node, and return its height.
function arrange(node, head = HEAD) {
  if (!node.classList.contains("open")) return HEAD;
  const inside = node.querySelector(":scope > .inside");
  const gaps = inside.dataset.gaps.split(" ").map(Number);
  const children = childrenOf(node);
  const heights = children.map((child) => arrange(child));
  const bottoms = [head];
  for (let row = 1; row < gaps.length; row++) {
    const tallest = heights.filter((_, i) => Number(children[i].dataset.row) === row);
    bottoms.push(bottoms[row - 1] + gaps[row - 1] + Math.max(...tallest));
  }
  const tops = children.map((child) => bottoms[child.dataset.row - 1] + gaps[child.dataset.row - 1]);
  children.forEach((child, i) => {
    child.setAttribute("transform", `translate(${child.dataset.x},${tops[i]})`);
    child.querySelector(":scope > .below")?.setAttribute("transform", `translate(0,${heights[i]})`);
  });
  for (const wire of inside.querySelectorAll(":scope > .wire")) {
    const [source, ...said] = wire.dataset.route.split(" ");
    const corners = said.map((corner) => corner.split(",").map(Number));
    const points = corners.map(([x, row, below]) => [x, bottoms[row] + below]);
    points[0][1] = source < 0 ? head : tops[source] + heights[source];
    wire.setAttribute("d", path(points, wire.classList.contains("arrow")));
  }
  for (const cut of inside.querySelectorAll(":scope > .cut")) {
    cut.setAttribute("transform", `translate(0,${bottoms[cut.dataset.row] + Number(cut.dataset.below)})`);
  }
  const height = bottoms.at(-1) + gaps.at(-1);
  inside.querySelector(":scope > .frame")?.setAttribute("height", height - head / 2);
  return height;
}

function path(corners, arrow) {
  const points = corners.filter((p, i) => !i || p[0] !== corners[i - 1][0] || p[1] !== corners[i - 1][1]);
  let text = `M${points[0].join(" ")}`;
  for (let i = 1; i < points.length - 1; i++) {
    text += `L${toward(points[i], points[i - 1])}Q${points[i].join(" ")} ${toward(points[i], points[i + 1])}`;
  }
  const [x, y] = points.at(-1);
  return `${text}L${x} ${y}${arrow ? `M${x - 4} ${y - 6}L${x} ${y}L${x + 4} ${y - 6}` : ""}`;
}

function toward(corner, other) {
  const dx = other[0] - corner[0], dy = other[1] - corner[1];
  const radius = Math.min(ROUND, Math.floor((Math.abs(dx) + Math.abs(dy)) / 2));
  return `${corner[0] + Math.sign(dx) * radius} ${corner[1] + Math.sign(dy) * radius}`;
}

function redraw(figure) {
  const svg = figure.querySelector("svg.graph");
  const root = svg.querySelector(".root");
  arrange(root, 0);
  const { x, y, width, height } = root.getBBox();
  const wide = width + 2 * EDGE, tall = height + 2 * EDGE;
  svg.setAttribute("viewBox", `${x - EDGE} ${y - EDGE} ${wide} ${tall}`);
  svg.setAttribute("width", wide);
  svg.setAttribute("height", tall);
  svg.classList.toggle("tall", tall > PAGE);
}

function setOpen(region, open) {
  region.classList.toggle("open", open);
  region.querySelector(":scope > .box").setAttribute("aria-expanded", open);
}

// Fold or unfold, and keep the region where the reader is looking.
function toggle(figure, box) {
  const before = box.getBoundingClientRect();
  setOpen(box.parentNode, !box.parentNode.classList.contains("open"));
  redraw(figure);
  const after = box.getBoundingClientRect();
  window.scrollBy({ top: after.top - before.top, behavior: "instant" });
}

function setAll(figure, open) {
  figure.querySelectorAll(".region:not(.root)").forEach((region) => setOpen(region, open));
  redraw(figure);
}

function find(figure, text, next) {
  const nodes = [...figure.querySelectorAll(".vertex[data-name]:not(.end)")];
  const found = text ? nodes.filter((node) => node.dataset.name.toLowerCase().includes(text.toLowerCase())) : [];
  const exact = found.find((node) => node.dataset.name === text);
  const last = found.findIndex((node) => node.classList.contains("found"));
  figure.querySelectorAll(".found").forEach((node) => node.classList.remove("found"));
  const count = figure.querySelector(".graph-count");
  count.textContent = text ? `${found.length} found` : "";
  if (!found.length) return;
  const at = next ? (last + 1) % found.length : exact ? found.indexOf(exact) : 0;
  const node = found[at];
  node.classList.add("found");
  if (!next && !exact) return;
  for (let up = node.parentNode.closest(".region"); up; up = up.parentNode.closest(".region")) {
    if (!up.classList.contains("root")) setOpen(up, true);
  }
  redraw(figure);
  count.textContent = `${at + 1} of ${found.length}`;
  node.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  tell(figure, node.querySelector(":scope > .box"));
}

function tell(figure, box) {
  figure.querySelector(".graph-about").textContent = box ? box.querySelector("title").textContent : "";
}

function setUp(figure) {
  const box = (event) => event.target.closest?.(".box");
  const button = (event) => event.target.closest?.('.box[role="button"]');
  figure.addEventListener("click", (event) => button(event) && toggle(figure, button(event)));
  figure.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && button(event)) {
      event.preventDefault();
      toggle(figure, button(event));
    }
  });
  for (const kind of ["mouseover", "focusin"]) figure.addEventListener(kind, (event) => tell(figure, box(event)));
  figure.addEventListener("mouseleave", () => tell(figure, null));
  figure.querySelector(".graph-expand").addEventListener("click", () => setAll(figure, true));
  figure.querySelector(".graph-collapse").addEventListener("click", () => setAll(figure, false));
  const search = figure.querySelector(".graph-search");
  search.addEventListener("input", () => find(figure, search.value, false));
  search.addEventListener("keydown", (event) => event.key === "Enter" && find(figure, search.value, true));
  figure.querySelector(".graph-controls").hidden = false;
}

document.querySelectorAll(".graph-figure").forEach(setUp);
