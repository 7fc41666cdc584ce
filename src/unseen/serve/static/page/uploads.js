// Images within the limits of the server ({upload_bytes, images}), without a page.

import { ask } from "/common.js";

const ENVELOPE = 4096; // bytes of a form around a file

export function tooLarge(file, limits) {
  const limit = limits.upload_bytes;
  return file.size > limit - ENVELOPE
    ? `${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; the limit is ${Math.round(limit / 2 ** 20)} MB.`
    : null;
}

// A form with files in a field, and further fields.
export function formOf(field, files, fields = {}) {
  const form = new FormData();
  for (const file of files) form.append(field, file, file.name || "pasted image");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return form;
}

// Split files into requests within the limits: the server adds all images of a request together.
export function parcels(files, limits) {
  const found = [];
  let size = Infinity;
  for (const file of files) {
    if (size + file.size + ENVELOPE > limits.upload_bytes || found.at(-1).length === limits.images) {
      found.push([]);
      size = 0;
    }
    found.at(-1).push(file);
    size += file.size + ENVELOPE;
  }
  return found;
}

export const imagesPath = (name) => `/api/class-images/${encodeURIComponent(name)}`;

// Send images of a class; returns the combined answer of all requests. Throws if no image was accepted.
export async function sendImages(name, files, limits, create = false) {
  const total = { classes: [], added: [], known: [], failed: [], warnings: [] };
  const sendable = [];
  for (const file of files) {
    const problem = tooLarge(file, limits);
    if (problem) total.failed.push({ image: file.name, error: problem });
    else sendable.push(file);
  }
  for (const parcel of parcels(sendable, limits)) {
    try {
      const method = create && !total.classes.length ? "PUT" : "PATCH";
      const found = await ask(imagesPath(name), { method, body: formOf("images", parcel) });
      total.classes = found.classes;
      for (const key of ["added", "known", "failed", "warnings"]) total[key].push(...found[key]);
    } catch (error) {
      total.failed.push(...parcel.map((file, i) => ({ image: file.name, error: i ? null : error.message })));
    }
  }
  if (!total.classes.length) throw new Error(total.failed.find((f) => f.error).error);
  return total;
}
