/* The line under a chart reads out the slot that the pointer is on. The table has the same for everybody. */

function readoutOf(element) {
  return element.closest?.(".chart")?.querySelector("[data-readout]");
}

function read(event) {
  const hit = event.target.closest?.(".chart-hit") ?? event.target.querySelector?.(".chart-hit");
  const readout = hit && readoutOf(hit);
  if (!readout) return;
  readout.dataset.kept ??= readout.textContent;
  readout.textContent = hit.querySelector("title")?.textContent ?? "";
}

document.addEventListener("pointerover", read);
document.addEventListener("focusin", (event) => {
  if (event.target.closest?.(".chart-plot")) read(event);
});
document.addEventListener("pointerout", (event) => {
  const plot = event.target.closest?.(".chart-plot");
  if (!plot || plot.contains(event.relatedTarget)) return;
  const readout = readoutOf(plot);
  if (readout?.dataset.kept !== undefined) readout.textContent = readout.dataset.kept;
});
