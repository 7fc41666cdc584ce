// Why a class: the evidence of each attribute, for it or against a rival, and what separates the two.

import { ask, count, make, signed } from "/common.js";
import { choose, rankAndSay } from "./answer.js";
import { attributeRow, termRow, updateRow, updateTerm } from "./attributes.js";
import { $, complain, options } from "./elements.js";
import { labelOf, state, when } from "./state.js";
import { hasAll, separation, wordsOf } from "./words.js";

const FEW = 12; // attributes shown at first
const AVERAGE = "what an average image gets"; // separates no classes, and would dwarf the other bars

let drawn = null; // the image whose rows are shown

function drawWhy() {
  const { answer, corrections, every } = state.shown;
  const against = Boolean($("measure").value === "against" && answer.rival);
  const value = (r) => (against ? r.against : r.evidence);
  drawHead(against);
  const terms = answer.terms.filter(value);
  const sorted = [...answer.reasons].sort((a, b) => Math.abs(value(b)) - Math.abs(value(a)));
  const measured = [...sorted, ...terms.filter((t) => t.name !== AVERAGE)];
  const bars = { value, largest: Math.max(...measured.map((r) => Math.abs(value(r))), 1e-9) };
  if (document.activeElement?.matches("#attributes input") && drawn === state.shown) return update(bars); // do not replace the slider in use
  drawn = state.shown;
  const words = wordsOf($("search").value);
  const found = sorted.filter((r) => hasAll(labelOf(r.attribute), words));
  const few = every || words.length ? found : found.filter((r, i) => i < FEW || corrections.has(r.attribute));
  drawRows(few, words.length ? [] : terms, bars, every && !words.length);
  const total = answer.reasons.length;
  $("all-attributes").hidden = words.length > 0 || total <= FEW;
  $("all-attributes").textContent = every ? "Show the strongest only" : `Show all ${count(total, "attribute")}, by group`;
  $("all-attributes").setAttribute("aria-expanded", String(every));
}

function drawHead(against) {
  const { target, rival, classes } = state.shown.answer;
  const names = classes.map((c) => c.name);
  $("why-title").textContent = `Why ${target.name}`;
  options($("target"), names, target.name);
  options($("rival"), names.filter((n) => n !== target.name), rival?.name);
  $("why-hint").textContent = against
    ? `Bars to the right favor ${target.name}, bars to the left favor ${rival.name}.`
    : `Bars to the right are evidence for ${target.name}, bars to the left evidence against it. Point at an attribute to see its heat map.`;
  $("account").textContent = against
    ? `Together, the bars add up to the lead of ${target.name} over ${rival.name}.`
    : `Together, the bars add up to the score of ${target.name}: ${signed(target.score)}.`;
  $("reset").disabled = !state.shown.corrections.size;
  $("separate").disabled = !rival;
  if (separated && separated !== pair()) hideSeparation();
}

function drawRows(reasons, terms, bars, grouped) {
  const { attribute, role } = document.activeElement?.dataset ?? {};
  const groups = new Map();
  for (const r of reasons) {
    const group = grouped ? state.info.get(r.attribute).group : "";
    groups.set(group, [...(groups.get(group) ?? []), r]);
  }
  const list = $("attributes");
  list.replaceChildren(
    ...terms.map((t) => termRow(t, bars)),
    ...[...groups].flatMap(([group, members]) => [...heading(group, members), ...members.map((r) => attributeRow(r, bars, grouped))]),
  );
  if (!reasons.length) list.append(make("p", { className: "empty", textContent: "No attribute matches." }));
  if (attribute) [...list.querySelectorAll(`[data-role="${role}"]`)].find((n) => n.dataset.attribute === attribute)?.focus();
}

// No heading above a single attribute of the same name.
const heading = (group, [first, ...more]) =>
  group && (more.length || labelOf(first.attribute).toLowerCase() !== group.toLowerCase()) ? [make("h3", { textContent: group })] : [];

// Update the numbers of existing rows.
function update(bars) {
  const { reasons, terms } = state.shown.answer;
  const [byName, byTerm] = [new Map(reasons.map((r) => [r.attribute, r])), new Map(terms.map((t) => [t.name, t]))];
  for (const row of $("attributes").querySelectorAll(".attribute")) {
    const name = row.dataset.row;
    if (!row.classList.contains("term")) updateRow(row, byName.get(name), bars);
    else if (byTerm.has(name)) updateTerm(row, byTerm.get(name), bars);
  }
}

// ---------------------------------------------------------------- what separates two classes

let separated = null; // the pair that the text is about

const pair = () => JSON.stringify([state.shown.answer.target.name, state.shown.answer.rival?.name]);

// What separates the class from its rival, and which values to refine.
async function separate() {
  if (separated) return hideSeparation();
  const mine = state.shown;
  try {
    let asked, texts;
    do {
      const { target, rival } = mine.answer;
      asked = pair();
      const found = await ask(`/api/separate?${new URLSearchParams({ first: target.name, second: rival.name })}`);
      texts = separation(found, target.name, rival.name, labelOf);
      if (mine !== state.shown) return;
    } while (asked !== pair()); // another one was chosen meanwhile
    $("separation").replaceChildren(...texts.map((text) => make("p", { textContent: text })));
    showSeparation(asked);
  } catch (error) {
    complain(error.message);
  }
}

function showSeparation(of) {
  separated = of;
  $("separation").hidden = !of;
  $("separate").setAttribute("aria-expanded", String(Boolean(of)));
}

const hideSeparation = () => showSeparation(null);

when("image", () => {
  $("why").hidden = false;
  hideSeparation();
});
when("answer", drawWhy);
$("target").addEventListener("change", () => choose($("target").value, state.shown.rival));
$("rival").addEventListener("change", () => choose(state.shown.answer.target.name, $("rival").value));
$("measure").addEventListener("change", drawWhy);
$("search").addEventListener("input", drawWhy);
$("separate").addEventListener("click", separate);
$("reset").addEventListener("click", () => {
  state.shown.corrections.clear();
  rankAndSay();
});
$("all-attributes").addEventListener("click", () => {
  state.shown.every = !state.shown.every;
  drawWhy();
});
