// The answer for one image: requests it, and again for each correction, rival or set of candidates.

import { ask, make, percent, send } from "/common.js";
import { $, complain, say } from "./elements.js";
import { state, tell } from "./state.js";
import { formOf, tooLarge } from "./uploads.js";
import { coarser } from "./words.js";

export const FIRST = 5; // classes shown at first
export const EVERY = 1000; // classes asked for

// Place and month, for a server with a prior.
export const occasion = () =>
  Object.fromEntries(["place", "month"].filter((id) => $(id).value).map((id) => [id, $(id).value]));

export function offerOccasions({ places, place, months, month }) {
  for (const [id, known, start, words] of [
    ["place", places, place, String],
    ["month", months, month, (m) => new Date(2000, m - 1).toLocaleString("en", { month: "long" })],
  ]) {
    $(id).parentElement.hidden = !known.length;
    const choices = known.length ? [["any", "any"], ...known.map((value) => [String(value), words(value)])] : [];
    $(id).replaceChildren(...choices.map(([value, text]) => make("option", { value, textContent: text })));
    if (start) $(id).value = start;
  }
}

let latest = null; // the file asked about last

export async function look(file) {
  complain("");
  latest = file;
  $("answer-card").classList.add("busy");
  say("Analyzing the image.");
  try {
    await state.loaded;
    const problem = tooLarge(file, state.about.limits);
    if (problem) throw new Error(problem);
    const bitmap = await createImageBitmap(file).catch(() => null);
    const fields = { top: EVERY, among: $("among").value, ...occasion(), thumbnails: 1, ...(bitmap ? {} : { preview: 1 }) };
    const answer = await ask("/api/explain", { method: "POST", body: formOf("image", [file], fields) });
    const visible = bitmap ?? (await preview(answer.preview));
    if (file !== latest) return; // another image was chosen meanwhile
    state.shown = {
      file,
      bitmap: visible,
      answer,
      heats: new Map(answer.reasons.map((r) => [r.attribute, r.heat])),
      corrections: new Map(),
      top: FIRST,
      every: false,
      target: null,
      rival: null,
      pinned: null,
      hovered: null,
    };
    tell("image");
    tell("answer");
    announce();
  } catch (error) {
    if (file !== latest) return;
    complain(error.message);
    say("");
  } finally {
    if (file === latest) $("answer-card").classList.remove("busy");
  }
}

// An image that the browser cannot read, as the server sends it back.
async function preview(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return createImageBitmap(image);
}

export function announce() {
  const { answer } = state.shown;
  const best = answer.classes[0];
  const sure = `${best.name}, ${percent(best.confidence)} confidence, ${best.seen ? "a seen" : "an unseen"} class.`;
  say(answer.unknown ? `${coarser(answer) || "Unknown"}. The closest is ${sure}` : sure);
}

let again = false;
let running = null; // promise of all requests

// Rank the look with the corrections; while a request is running, only the latest one waits.
export async function rank() {
  if (!state.shown) return;
  again = true;
  running ??= rankAll();
  await running;
}

export const rankAndSay = () => rank().then(announce);

async function rankAll() {
  while (again) {
    again = false;
    const mine = state.shown;
    try {
      const found = await send("/api/rank", "POST", {
        look: mine.answer.look,
        corrections: Object.fromEntries(mine.corrections),
        top: EVERY,
        among: $("among").value,
        ...occasion(),
        target: mine.target,
        rival: mine.rival,
      });
      if (mine !== state.shown) continue;
      Object.assign(mine.answer, found);
      complain("");
      tell("answer");
    } catch (error) {
      if (mine === state.shown) complain(error.message);
    }
  }
  running = null;
}

export function choose(target, rival) {
  state.shown.target = target;
  state.shown.rival = rival === target ? null : rival;
  return rank();
}

for (const id of ["among", "place", "month"])
  $(id).addEventListener("change", () => {
    if (!state.shown) return;
    state.shown.target = state.shown.rival = null;
    rankAndSay();
  });
