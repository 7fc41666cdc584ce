// The classes of the answer, ranks above them, and the most similar training images.

import { make, percent } from "/common.js";
import { choose, EVERY, FIRST } from "./answer.js";
import { $, buttonOf, chip, note } from "./elements.js";
import { state, when } from "./state.js";
import { coarser } from "./words.js";

const MORE = 20; // classes shown at the second step

function drawRanking() {
  const { answer, top } = state.shown;
  drawRemarks(answer);
  const small = new Map(state.classes.filter((c) => c.thumbnail).map((c) => [c.name, c.thumbnail]));
  const focused = document.activeElement?.closest?.("#ranking button")?.dataset.name;
  $("ranking").replaceChildren(
    ...answer.classes.slice(0, top).map((c) => make("li", {}, rankedClass(c, c.name === answer.target.name, small.get(c.name)))),
  );
  if (focused) [...$("ranking").querySelectorAll("button")].find((b) => b.dataset.name === focused)?.focus();
  $("more").hidden = answer.classes.length <= top;
}

function drawRemarks(answer) {
  const { classes, unknown, ranks, why_coarser: why, without_prior: without, prior } = answer;
  const said = unknown && (coarser(answer) || "Unknown");
  note("unknown", unknown && `${said}: no class reaches ${percent(state.about.threshold)} confidence. These are the closest.`);
  note("taxa", (ranks ?? []).map((t) => `${t.rank}: ${t.name} ${percent(t.confidence)}`).join(" · "));
  $("why-coarser").hidden = !why?.length;
  $("why-coarser").lastElementChild.replaceChildren(...(why ?? []).map((text) => make("li", { textContent: text })));
  note(
    "prior",
    without &&
      `From the image alone: ${without.name}, ${percent(without.confidence)}. Place and month give ${classes[0].name} ${percent(prior)} before the image is seen.`,
  );
}

function rankedClass(c, explained, thumbnail) {
  const fill = make("span");
  fill.style.width = `${Math.max(100 * c.confidence, 0.5)}%`;
  return buttonOf(
    { data: { name: c.name }, aria: { pressed: String(explained) }, title: "Explain this class" },
    () => choose(c.name, null),
    thumbnail ? make("img", { src: thumbnail, alt: "", title: `an image of ${c.name}`, loading: "lazy" }) : null,
    make("span", { className: "name" }, make("span", { textContent: c.name }), chip(c.seen)),
    make("span", { className: "percent", textContent: percent(c.confidence) }),
    make("span", { className: "meter", aria: { hidden: "true" } }, fill),
  );
}

// As the model saw the image; corrections do not change them.
function drawNearest() {
  const { nearest } = state.shown.answer;
  $("nearest-card").hidden = !nearest.length;
  $("nearest").replaceChildren(
    ...nearest.map((n) =>
      make(
        "li",
        { title: `${n.file}, similarity ${n.similarity.toFixed(2)}` },
        n.thumbnail ? make("img", { src: n.thumbnail, alt: "" }) : null,
        make("span", { textContent: n.name }),
        n.thumbnail ? null : make("span", { className: "hint", textContent: n.file }),
      ),
    ),
  );
}

when("image", () => {
  $("answer-empty").hidden = true;
  drawNearest();
});
when("answer", drawRanking);
$("more").addEventListener("click", () => {
  state.shown.top = state.shown.top === FIRST ? MORE : EVERY;
  drawRanking();
});
