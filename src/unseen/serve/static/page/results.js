// The table of many images: a row for each, sorted and filtered.

import { make, percent, withHint } from "/common.js";
import { look } from "./answer.js";
import { $, buttonOf, chip } from "./elements.js";
import { labelOf, state } from "./state.js";
import { openTab } from "./tabs.js";
import { byColumn, coarser, hasAll, wordsOf } from "./words.js";

const SIDE = 88; // of a thumbnail

let sorting = null; // {key, down}

// The middle of an image; blank if the browser cannot read it.
function thumbnailOf(file) {
  const canvas = make("canvas", { width: SIDE, height: SIDE, aria: { hidden: "true" } });
  createImageBitmap(file, { resizeHeight: SIDE, resizeQuality: "medium" })
    .then((bitmap) => {
      const side = Math.min(bitmap.width, bitmap.height);
      const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
      canvas.getContext("2d").drawImage(bitmap, x, y, side, side, 0, 0, SIDE, SIDE);
      bitmap.close();
    })
    .catch(() => {});
  return canvas;
}

function nodeOf({ file, found }) {
  const explain = () => {
    openTab("image");
    look(file);
  };
  const open = buttonOf({ className: "open", title: "Explain this image" }, explain, thumbnailOf(file), make("span", { textContent: found.image }));
  const cells = found.error ? [make("td", { className: "bad", colSpan: 4, textContent: withHint(found.error, found.hint) })] : cellsOf(found);
  return make("tr", {}, make("td", {}, open), ...cells);
}

function cellsOf(found) {
  const [best, next] = found.classes;
  return [
    make("td", {}, found.unknown ? `${coarser(found) || "unknown"}; nearest: ${best.name}` : best.name, chip(best.seen)),
    make("td", { textContent: percent(best.confidence) }),
    make("td", { textContent: next ? `${next.name}, ${percent(next.confidence)}` : "" }),
    make("td", { textContent: found.attributes.slice(0, 2).map((a) => labelOf(a.attribute)).join("; ") }),
  ];
}

function fitsFilter({ found, node }) {
  const which = $("batch-which").value;
  if (which === "unknown" && (found.error || !found.unknown)) return false;
  if (which === "error" && !found.error) return false;
  return hasAll(node.textContent, wordsOf($("batch-search").value));
}

const body = () => $("batch-table").tBodies[0];
const sortedRows = () => (sorting ? [...state.batch.rows].sort(byColumn(sorting.key, sorting.down)) : state.batch.rows);

// Add a new row; the others stay in place.
export function placeRow(row) {
  row.node = nodeOf(row);
  row.node.hidden = !fitsFilter(row);
  const order = sorting && byColumn(sorting.key, sorting.down);
  const before = sorting && sortedRows().find((other) => other !== row && order(row, other) < 0);
  body().insertBefore(row.node, before?.node ?? null);
}

// Show the new answer in a row's place.
export function replaceRow(row) {
  const old = row.node;
  row.node = nodeOf(row);
  row.node.hidden = !fitsFilter(row);
  old.replaceWith(row.node);
}

export const clearRows = () => body().replaceChildren();

export function drawRows() {
  for (const row of state.batch.rows) row.node.hidden = !fitsFilter(row);
  body().replaceChildren(...sortedRows().map((row) => row.node));
  for (const button of document.querySelectorAll("#batch-table [data-sort]")) {
    const mine = sorting?.key === button.dataset.sort;
    button.parentElement.ariaSort = mine ? (sorting.down ? "descending" : "ascending") : null;
  }
}

for (const button of document.querySelectorAll("#batch-table [data-sort]"))
  button.addEventListener("click", () => {
    const key = button.dataset.sort;
    sorting = sorting?.key !== key ? { key, down: false } : sorting.down ? null : { key, down: true };
    drawRows();
  });
$("batch-search").addEventListener("input", drawRows);
$("batch-which").addEventListener("change", drawRows);
