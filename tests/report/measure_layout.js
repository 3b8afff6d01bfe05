// Returns sentences about texts that are cut off, leave the page sideways, or lie on each other.
const problems = [];
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width + 1) {
  problems.push(`the page scrolls sideways: ${document.documentElement.scrollWidth} > ${width}`);
}
const boxes = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const parent = node.parentElement;
  if (!node.textContent.trim() || parent.closest("script, style, title, noscript, .show")) continue;
  if (!parent.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const rect of range.getClientRects()) {
    if (rect.width < 1 || rect.height < 1) continue;
    const name = `"${node.textContent.trim().slice(0, 40)}" in ${parent.tagName}.${parent.getAttribute("class") || ""}`;
    let scrolls = false;
    let hidden = false;
    for (let box = parent; box && box !== document.body; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (box.tagName === "svg" || (box.namespaceURI || "").endsWith("svg")) continue;
      const outer = box.getBoundingClientRect();
      if (style.overflowX === "auto" || style.overflowX === "scroll") {
        scrolls = true;
        if (rect.left < outer.left - 1 || rect.right > outer.right + 1) hidden = true;
      } else if (style.overflowX !== "visible") {
        const over = Math.max(outer.left - rect.left, rect.right - outer.right, outer.top - rect.top,
          rect.bottom - outer.bottom);
        if (over > 1.5) problems.push(`${name} is cut off by ${over.toFixed(0)} px`);
      }
    }
    const panel = parent.closest("figure, .tile, .example, td, th, main");
    const frame = panel.getBoundingClientRect();
    if (!hidden && (rect.left < frame.left - 2 || rect.right > frame.right + 2)) {
      problems.push(`${name} leaves its ${panel.tagName}`);
    }
    if (!scrolls && (rect.left < -1 || rect.right > width + 1)) problems.push(`${name} leaves the page`);
    if (hidden) continue;
    const shrink = 0.22 * rect.height;  // what a font keeps free above and below its letters
    boxes.push({ name, left: rect.left, right: rect.right, top: rect.top + shrink,
      bottom: rect.bottom - shrink });
  }
}
boxes.sort((a, b) => a.top - b.top);
boxes.forEach((box, i) => {
  for (let j = i + 1; j < boxes.length && boxes[j].top < box.bottom - 1; j++) {
    const other = boxes[j];
    const across = Math.min(box.right, other.right) - Math.max(box.left, other.left);
    if (across > 1.5) problems.push(`${box.name} lies on ${other.name}`);
  }
});
return problems;
