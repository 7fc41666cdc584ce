// Review of many images: the contact sheet for their answers, with verdicts stored in the browser.

import { ask, count, downloadCsv, make } from "/common.js";
import { openSheet } from "/sheet.js";

const THUMBNAIL = 260;

// Thumbnails, made when first displayed; null if the browser cannot show an image.
async function smallImage(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return null;
  const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.85));
  return URL.createObjectURL(blob);
}

const identity = (file) => `${file.name}|${file.size}|${file.lastModified}`;

// Position of an image in a random order that does not change with further images (FNV-1a, mixed).
function place(text) {
  let hash = 2166136261;
  for (const char of text) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

// The sheet in an element. The page gives: rows() -> [{found, file, origins}], classes() -> names, originOf(name) -> first
// name of the class, nameNow(first name) -> name or undefined, name(), labelOf(attribute),
// support: {send(name, files), again()} or null. Returns a function that shows the current rows.
export async function openReview(host, page) {
  const root = host.attachShadow({ mode: "open" });
  const part = await (await fetch("/sheet-part.html")).text();
  root.innerHTML = `<link rel="stylesheet" href="/base.css"><link rel="stylesheet" href="/sheet.css">${part}`;
  const small = new WeakMap(); // file -> promise of a URL
  let large = null;
  const key = () => `unseen-verdicts-${page.name()}`;

  function kept() {
    try {
      return JSON.parse(localStorage.getItem(key()) ?? "{}");
    } catch {
      return {};
    }
  }

  function item({ found, file, origins }, row) {
    return {
      row,
      image: found.image,
      known: !found.unknown,
      classes: (found.classes ?? []).map((c, i) => [page.nameNow(origins[i]) ?? c.name, c.seen, c.confidence]),
      attributes: (found.attributes ?? []).map((a) => page.labelOf(a.attribute)),
      coarser: page.coarser(found),
      error: found.error ?? null,
      place: place(identity(file)),
      used: Boolean(found.used),
    };
  }

  const store = {
    load: async () => {
      const verdicts = kept();
      const given = page.rows().map(({ file }, row) => [row, verdicts[identity(file)]]);
      return {
        classes: page.classes(),
        items: page.rows().map(item),
        verdicts: given.map(([row, origin]) => [row, origin && page.nameNow(origin)]).filter(([, name]) => name !== undefined), // removed classes
      };
    },
    keep: async (changes) => {
      const verdicts = kept();
      for (const [row, name] of changes) {
        const file = identity(page.rows()[row].file);
        if (name === undefined) delete verdicts[file];
        else verdicts[file] = name && page.originOf(name);
      }
      try {
        localStorage.setItem(key(), JSON.stringify(verdicts));
      } catch {
        throw new Error("The browser cannot store the verdicts. Download the CSV before you leave the page.");
      }
    },
    image: ({ row }) => {
      const { file } = page.rows()[row];
      if (!small.has(file)) small.set(file, smallImage(file));
      return small.get(file);
    },
    large: ({ row }) => {
      if (large) URL.revokeObjectURL(large);
      large = URL.createObjectURL(page.rows()[row].file);
      return large;
    },
    reasons: async ({ row }) => {
      const { file } = page.rows()[row];
      const form = new FormData();
      form.append("image", file, file.name);
      const found = await ask("/api/explain", { method: "POST", body: form });
      const strongest = [...found.reasons].sort((a, b) => Math.abs(b.evidence) - Math.abs(a.evidence)).slice(0, 10);
      return {
        crop: found.crop.map((edge, i) => edge / (i % 2 ? found.height : found.width)),
        reasons: strongest.map((r) => ({ label: page.labelOf(r.attribute), evidence: r.evidence, heat: r.heat })),
      };
    },
    tools: [
      { text: "Download CSV", id: "csv", run: ({ table }) => downloadCsv("review.csv", table()) },
      { text: "Download XLSX", id: "xlsx", run: ({ table }) => page.downloadXlsx("review.xlsx", table()) },
    ],
  };
  if (page.support) {
    const teach = async ({ items, verdicts }) => {
      const files = new Map(); // class -> its reviewed images
      for (const [row, name] of verdicts) {
        if (name !== null && !items[row].error && !items[row].used) files.set(name, [...(files.get(name) ?? []), page.rows()[row].file]);
      }
      if (!files.size) return "No new images to add: no image is reviewed, or the model already has them.";
      let added = 0;
      for (const [name, images] of files) added += (await page.support.send(name, images)).added.length;
      await page.support.again();
      return `${count(added, "image")} added to ${count(files.size, "class")}; all images were predicted again. Support images do not count in the measured accuracy.`;
    };
    store.tools.push({ text: "Use as images of their classes", id: "teach", run: teach });
  }
  return openSheet(root, store);
}
