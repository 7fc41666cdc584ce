// Values and answers in words and tables, without a page.

import { count, percent, withHint } from "/common.js";

export const plain = (value) => String(Number(value.toPrecision(3)));

// Words of a search, and whether a text has them all.
export const wordsOf = (search) => search.toLowerCase().split(/\s+/).filter(Boolean);
export const hasAll = (text, words) => words.every((word) => text.toLowerCase().includes(word));

export const firstOf = (names, most) => `${names.slice(0, most).join(", ")}${names.length > most ? ", …" : ""}`;

export const capital = (text) => text[0].toUpperCase() + text.slice(1);

// "Ardeidae (family), probably Night Heron"
export function coarser({ answer, answer_rank: rank, ranks }) {
  const found = ranks?.find((taxon) => taxon.rank === rank && taxon.name === answer);
  return found && `${found.name} (${found.rank}), probably ${found.probably}`;
}

// What a class score is based on.
export function restsOn({ images, image_weight: weight }) {
  if (!images) return "its attributes alone";
  return weight === 1 ? `${count(images, "image")}, no attributes` : `${count(images, "image")} (${percent(weight)}) and its attributes (${percent(1 - weight)})`;
}

const NOTES = 6;

// Notes on images that were left out.
export function leftOut({ known = [], failed = [], warnings = [] }) {
  const lines = failed.filter((f) => f.error).map((f) => withHint(f.error, f.hint));
  if (known.length) lines.unshift(`Already in the class: ${firstOf(known, 5)}.`);
  const more = lines.length > NOTES ? [`${lines.length - NOTES + 1} more were left out.`] : [];
  return [...lines.slice(0, more.length ? NOTES - 1 : NOTES), ...more, ...warnings];
}

// What differs between two classes, and what to check; the answer of /api/separate.
export function separation({ today, refine }, first, second, labelOf) {
  const values = (d) => `${labelOf(d.attribute)} (${plain(d.first_value)} and ${plain(d.second_value)})`;
  return [
    today.length ? `${first} and ${second} differ most in ${today.map(values).join(", ")}.` : `${first} and ${second} have equal attributes.`,
    refine.length
      ? `To separate them better, check whether they differ in ${refine.map((d) => labelOf(d.attribute)).join(", ")}: the model recognizes these well, but their values are equal in the table.`
      : "The table has no other attribute that the model recognizes well.",
  ];
}

// ---------------------------------------------------------------- answers for many images

// The same columns as unseen predict --output. Found: answers of /api/predict; about: {ranks, prior}.
export function predictionTable(found, about, labelOf) {
  const most = Math.max(1, ...found.map((r) => r.classes?.length ?? 0));
  const places = Array.from({ length: most - 1 }, (_, i) => i + 2);
  const others = places.flatMap((place) => [`class_${place}`, `confidence_${place}`]);
  const taxa = about.ranks.length ? ["answer", "answer_rank", ...about.ranks.flatMap((rank) => [rank, `${rank}_confidence`])] : [];
  const weighed = about.prior ? ["class_without_prior", "confidence_without_prior", "prior"] : [];
  const header = ["image", "class", "best_class", "confidence", "seen", ...others, ...taxa, ...weighed, "attributes", "error"];
  const rows = found.map((r) => {
    const [best, ...rest] = r.classes ?? [];
    const cells = {
      image: r.image,
      class: best && r.unknown ? "unknown" : best?.name,
      best_class: best?.name,
      confidence: best?.confidence,
      seen: best && Number(best.seen),
      answer: r.answer,
      answer_rank: r.answer_rank,
      class_without_prior: r.without_prior?.name,
      confidence_without_prior: r.without_prior?.confidence,
      prior: r.prior,
      attributes: (r.attributes ?? []).map((a) => labelOf(a.attribute)).join("; "),
      error: r.error,
    };
    for (const [i, other] of rest.entries()) {
      cells[`class_${i + 2}`] = other.name;
      cells[`confidence_${i + 2}`] = other.confidence;
    }
    for (const taxon of r.ranks ?? []) {
      cells[taxon.rank] = taxon.name;
      cells[`${taxon.rank}_confidence`] = taxon.confidence;
    }
    return header.map((name) => cells[name]);
  });
  return [header, ...rows];
}

const KEYS = {
  image: (found) => found.image.toLowerCase(),
  class: (found) => (found.error ? "\uffff" : `${found.unknown ? "" : "\u0001"}${found.classes[0].name.toLowerCase()}`),
  confidence: (found) => (found.error ? -1 : found.classes[0].confidence),
};

// Compare rows by a column of the page.
export const byColumn = (key, down) => (a, b) => {
  const [x, y] = [KEYS[key](a.found), KEYS[key](b.found)];
  return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
};
