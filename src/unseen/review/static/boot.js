// The contact sheet as its own page: the server stores the verdicts, or the browser if the page is a file.

import { ask, downloadCsv, send } from "/common.js";
import { openSheet } from "/sheet.js";

const embedded = document.getElementById("data");

const server = {
  strict: true,
  load: () => ask("/api/review"),
  keep: (changes) => {
    const groups = new Map(); // one request per verdict, for all its rows
    for (const [row, verdict] of changes) {
      const key = JSON.stringify(verdict === undefined ? "undo" : [verdict]);
      groups.set(key, [...(groups.get(key) ?? []), row]);
    }
    return send("/api/review/verdicts", "POST", {
      verdicts: [...groups].map(([key, rows]) => {
        const value = JSON.parse(key);
        return value === "undo" ? { rows, undo: true } : { rows, class: value[0] };
      }),
    });
  },
  image: (item) => `/thumb/${item.row}`,
  large: (item) => `/image/${item.row}`,
  reasons: (item) => ask(`/api/review/${item.row}/reasons`),
  tools: [
    { text: "Download CSV", href: "/api/review/export.csv" },
    { text: "Download XLSX", href: "/api/review/export.xlsx" },
    {
      text: "Copy into folders by class",
      run: async () => `Copied the images to ${(await send("/api/review/folders", "POST", {})).folder}.`,
    },
  ],
};

let key; // key of the verdicts in the browser

function stored() {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

const browser = {
  load: async () => {
    const found = JSON.parse(embedded.textContent);
    key = `unseen-review-${found.key}`;
    return { ...found, verdicts: JSON.parse(stored() ?? "[]") };
  },
  keep: async (_, verdicts) => {
    try {
      localStorage.setItem(key, JSON.stringify([...verdicts]));
    } catch {
      throw new Error("The browser cannot store the verdicts of this page. Save the CSV before you close it.");
    }
  },
  image: (item) => (item.thumbnail ? `data:image/jpeg;base64,${item.thumbnail}` : null),
  large: (item) => browser.image(item),
  tools: [{ text: "Save as CSV", id: "save", run: ({ table }) => downloadCsv("review.csv", table()) }],
};

openSheet(document, embedded ? browser : server)();
