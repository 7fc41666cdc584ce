"use strict";
// tables sort by their headings, which are not <button>s: Chromium would not repeat those on every printed page
for (const handle of document.querySelectorAll('th [role="button"]')) {
  const sort = () => {
    const head = handle.closest("th"), body = head.closest("table").tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : head.dataset.first === "up";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...body.rows].map(row => [key(row), row]);
    const order = ([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const [x, y] = [Number(a), Number(b)];
      const less = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
      return up ? less : -less;
    };
    body.append(...rows.sort(order).map(([, row]) => row));
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  };
  handle.addEventListener("click", sort);
  handle.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    sort();
  });
}
// open everything for printing
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
