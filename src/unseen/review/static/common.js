// Shared by the pages: elements, requests, tables, heat maps. Inlined in self-contained pages.

export function make(tag, properties = {}, ...children) {
  const { data, aria, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  for (const [key, value] of Object.entries(data ?? {})) node.dataset[key] = value;
  for (const [key, value] of Object.entries(aria ?? {})) node.setAttribute(key === "role" ? key : `aria-${key}`, value);
  node.append(...children.filter((child) => child != null));
  return node;
}

export const percent = (value) =>
  value > 0.995 && value < 1 ? "over 99%" : value > 0 && value < 0.01 ? "under 1%" : `${Math.round(100 * value)}%`;
// Two digits after the point, or three for small scores; 0 if these are zeros.
export const signed = (value) => {
  const size = Math.abs(value);
  return size < 0.0005 ? "0" : `${value > 0 ? "+" : "−"}${size.toFixed(size < 0.095 ? 3 : 2)}`;
};
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : /(s|x|ch|sh)$/.test(noun) ? "es" : "s"}`;

// ---------------------------------------------------------------- requests

// An error of the API as sentences.
export const withHint = (error, hint) => `${error}${error.endsWith(".") ? "" : "."}${hint ? ` To fix it: ${hint}.` : ""}`;

// The answer to a request. An error is thrown as one to show, with its status and the seconds to wait.
export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Check that it is running and that the network works.");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const error = new Error(body.error ? withHint(body.error, body.hint) : `The server returned status ${answer.status}.`);
  error.status = answer.status;
  error.wait = Number(answer.headers.get("Retry-After")) || 1;
  throw error;
}

export const ask = async (path, options) => (await request(path, options)).json().catch(() => ({}));

export const send = (path, method, value) =>
  ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

// ---------------------------------------------------------------- tables

// A cell of a CSV file; marked as text if a spreadsheet would read it as a formula.
function cell(value) {
  if (typeof value === "boolean") return String(Number(value));
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export const csv = (rows) => rows.map((row) => row.map(cell).join(",") + "\r\n").join("");

export function download(name, type, content) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const downloadCsv = (name, rows) => download(name, "text/csv;charset=utf-8", csv(rows));

// ---------------------------------------------------------------- heat maps

const RAMP = [[35, 17, 81], [82, 20, 120], [140, 41, 129], [194, 60, 110], [241, 96, 93], [254, 150, 90], [254, 187, 91],
  [252, 253, 191]];

// Draw rows of 0 to 255 over the crop (left, top, right, bottom in pixels of the canvas), and dim the rest.
export function drawHeat(canvas, rows, [left, top, right, bottom]) {
  const pen = canvas.getContext("2d");
  pen.fillStyle = "rgb(0 0 0 / 55%)";
  pen.beginPath();
  pen.rect(0, 0, canvas.width, canvas.height);
  pen.rect(left, top, right - left, bottom - top);
  pen.fill("evenodd");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(heatMap(rows), left, top, right - left, bottom - top);
}

function heatMap(rows) {
  const small = new OffscreenCanvas(rows[0].length, rows.length);
  const pen = small.getContext("2d");
  const pixels = pen.createImageData(small.width, small.height);
  const flat = rows.flat();
  const low = Math.min(...flat);
  const span = Math.max(Math.max(...flat) - low, 1);
  flat.forEach((value, i) => {
    const share = (value - low) / span;
    const place = share * (RAMP.length - 1);
    const at = Math.min(Math.floor(place), RAMP.length - 2);
    const color = RAMP[at].map((c, j) => c + (place - at) * (RAMP[at + 1][j] - c));
    pixels.data.set([...color, 60 + 150 * share], 4 * i);
  });
  pen.putImageData(pixels, 0, 0);
  return small;
}
