// Review of many images: the contact sheet for their answers, with verdicts kept in the browser.

import { ask, count, downloadCsv, make, request } from "/common.js";
import { openSheet } from "/sheet.js";
import { $, complain, picksFiles, takesFiles } from "./elements.js";
import { downloadXlsx, predictAgain, runBatch } from "./many.js";
import { loadClasses } from "./model.js";
import { labelOf, nameNow, originOf, state, when } from "./state.js";
import { isOpen } from "./tabs.js";
import { formOf, sendImages } from "./uploads.js";
import { coarser } from "./words.js";

const THUMBNAIL = 260;
const REASONS = 10;

const fileOf = ({ row }) => state.batch.rows[row].file;
const identity = (file) => `${file.name}|${file.size}|${file.lastModified}`;

// Position of an image in a random order that does not change with further images (FNV-1a, mixed).
export function placeOf(text) {
  let hash = 2166136261;
  for (const char of text) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

// ---------------------------------------------------------------- verdicts: identity of a file -> first name of a class, or null

const key = () => `unseen-verdicts-${state.about.model}`;

function kept() {
  try {
    return JSON.parse(localStorage.getItem(key()) ?? "{}");
  } catch {
    return {};
  }
}

async function keep(changes) {
  const verdicts = kept();
  for (const [row, name] of changes) {
    const file = identity(fileOf({ row }));
    if (name === undefined) delete verdicts[file];
    else verdicts[file] = name && originOf(name);
  }
  try {
    localStorage.setItem(key(), JSON.stringify(verdicts));
  } catch {
    throw new Error("The browser cannot store the verdicts. Download the CSV before you leave the page.");
  }
}

// ---------------------------------------------------------------- rows and images

async function load() {
  const { rows } = state.batch;
  const verdicts = kept();
  const given = rows.map(({ file }, row) => [row, verdicts[identity(file)]]);
  return {
    classes: state.classes.map((c) => c.name),
    items: rows.map(itemOf),
    verdicts: given.map(([row, origin]) => [row, origin && nameNow(origin)]).filter(([, name]) => name !== undefined), // removed classes
  };
}

function itemOf({ found, file, origins }, row) {
  return {
    row,
    image: found.image,
    known: !found.unknown,
    classes: (found.classes ?? []).map((c, i) => [nameNow(origins[i]) ?? c.name, c.seen, c.confidence]),
    attributes: (found.attributes ?? []).map((a) => labelOf(a.attribute)),
    coarser: coarser(found),
    error: found.error ?? null,
    place: placeOf(identity(file)),
    used: Boolean(found.used),
  };
}

const small = new WeakMap(); // file -> promise of a URL
let large = null;

// A thumbnail, made when first displayed; null if the browser cannot show the image.
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

function image(item) {
  const file = fileOf(item);
  if (!small.has(file)) small.set(file, smallImage(file));
  return small.get(file);
}

function largeImage(item) {
  if (large) URL.revokeObjectURL(large);
  large = URL.createObjectURL(fileOf(item));
  return large;
}

// Why the class of the answer; of the best class if that one was removed.
async function reasons(item) {
  const target = nameNow(state.batch.rows[item.row].origins[0]);
  const found = await ask("/api/explain", { method: "POST", body: formOf("image", [fileOf(item)], target === undefined ? {} : { target }) });
  const strongest = [...found.reasons].sort((a, b) => Math.abs(b.evidence) - Math.abs(a.evidence)).slice(0, REASONS);
  return {
    crop: found.crop.map((edge, i) => edge / (i % 2 ? found.height : found.width)),
    reasons: strongest.map((r) => ({ label: labelOf(r.attribute), evidence: r.evidence, heat: r.heat })),
  };
}

// ---------------------------------------------------------------- tools

// Reviewed images become images of their classes.
async function teach({ items, verdicts }) {
  const files = new Map(); // class -> its reviewed images
  for (const [row, name] of verdicts) {
    if (name !== null && !items[row].error && !items[row].used) files.set(name, [...(files.get(name) ?? []), fileOf({ row })]);
  }
  if (!files.size) return "No new images to add: no image is reviewed, or the model already has them.";
  let added = 0;
  for (const [name, images] of files) added += (await sendImages(name, images, state.about.limits)).added.length;
  await loadClasses();
  await predictAgain();
  return `${count(added, "image")} added to ${count(files.size, "class")}; all images were predicted again. Support images do not count in the measured accuracy.`;
}

// The store of the sheet; see sheet.js.
function storeOf() {
  const tools = [
    { text: "Download CSV", id: "csv", run: ({ table }) => downloadCsv("review.csv", table()) },
    { text: "Download XLSX", id: "xlsx", run: ({ table }) => downloadXlsx("review.xlsx", table()) },
  ];
  if (!state.about.no_images) tools.push({ text: "Use as images of their classes", id: "teach", run: teach });
  return { load, keep, image, large: largeImage, reasons, tools };
}

// ---------------------------------------------------------------- tab

let refresh = null; // promise of a function that shows the current rows

// The sheet is in a shadow root, as its elements have the names of the page's.
async function open(host) {
  const part = await (await request("/sheet-part.html")).text();
  const root = host.attachShadow({ mode: "open" });
  root.innerHTML = `<link rel="stylesheet" href="/base.css"><link rel="stylesheet" href="/sheet.css">${part}`;
  return openSheet(root, storeOf());
}

async function draw() {
  const none = !state.batch.rows.length;
  $("review-empty").hidden = !none;
  $("review-sheet").hidden = none;
  if (none || !isOpen("review")) return;
  try {
    refresh ??= open($("review-sheet"));
    await (await refresh)();
  } catch (error) {
    refresh = null; // the next time may succeed
    complain(error.message);
  }
}

when("tab", draw);
when("predicted", draw);
picksFiles($("review-files"), runBatch);
takesFiles($("review-drop"), runBatch);
