// Rows of attributes: a button for the heat map, a bar of evidence, and a slider for a correction.
// Bars: {value: function of a reason or term, largest: value of the longest bar}.

import { make, signed } from "/common.js";
import { rank, rankAndSay } from "./answer.js";
import { $, buttonOf, labelled, say } from "./elements.js";
import { labelOf, state, tell } from "./state.js";
import { plain } from "./words.js";

function bar(value, largest) {
  const fill = make("span", { className: value > 0 ? "plus" : "minus" });
  fill.style.width = `${Math.min(50, (50 * Math.abs(value)) / largest)}%`;
  return make(
    "div",
    { className: "bar" },
    make("div", { className: "plot", aria: { hidden: "true" } }, fill),
    make("span", { className: "number", textContent: signed(value) }),
  );
}

// Contributions other than attributes.
export const termRow = (term, { value, largest }) =>
  make("div", { className: "attribute term", data: { row: term.name } }, make("span", { textContent: term.name }), bar(value(term), largest), make("span"));

export const updateTerm = (row, term, { value, largest }) => row.querySelector(".bar").replaceWith(bar(value(term), largest));

export function attributeRow(reason, bars, grouped) {
  const name = reason.attribute;
  const button = buttonOf(
    {
      className: "show",
      data: { attribute: name, role: "show" },
      aria: { pressed: String(state.shown.pinned === name) },
      title: "Show the heat map",
    },
    () => pin(name),
    make("span", {}, ...labelled(state.info.get(name), grouped)),
    make("span", { className: "absent" }),
  );
  const row = make("div", { className: "attribute", data: { row: name } }, button, bar(0, 1), make("div", { className: "slide" }));
  updateRow(row, reason, bars);
  const hover = (attribute) => () => {
    state.shown.hovered = attribute;
    tell("heat");
  };
  for (const kind of ["pointerenter", "focusin"]) row.addEventListener(kind, hover(name));
  for (const kind of ["pointerleave", "focusout"]) row.addEventListener(kind, hover(null));
  return row;
}

export function updateRow(row, reason, bars) {
  updateTerm(row, reason, bars);
  row.querySelector(".absent").textContent = reason.score < reason.typical ? "absent" : "";
  if (!state.about.no_corrections) fillSlide(row.querySelector(".slide"), reason);
}

function pin(name) {
  const { shown } = state;
  shown.pinned = shown.pinned === name ? null : name;
  for (const button of $("attributes").querySelectorAll(".show"))
    button.setAttribute("aria-pressed", String(button.dataset.attribute === shown.pinned));
  tell("heat");
  say(shown.pinned ? `The image shows the heat map of ${labelOf(name)}.` : "The heat map is hidden.");
}

// ---------------------------------------------------------------- corrections

function fillSlide(slide, reason) {
  const name = reason.attribute;
  const { corrections } = state.shown;
  const { low, high, label } = state.info.get(name);
  const corrected = corrections.has(name);
  const unread = !corrected && reason.reading == null;
  const value = corrected ? corrections.get(name) : (reason.reading ?? (low + high) / 2);
  if (!slide.firstElementChild) slide.append(rangeOf(name), make("span"));
  const [range, end] = slide.children;
  if (document.activeElement !== range) range.value = value;
  const read = unread ? "not learned well enough to estimate" : `${plain(value)}, estimated by the model`;
  range.setAttribute("aria-valuetext", corrected ? `${plain(value)}, corrected` : read);
  slide.classList.toggle("unread", unread);
  if (!corrected) end.replaceWith(make("output", { textContent: unread ? "?" : plain(value), title: unread ? read : "" }));
  else if (end.tagName !== "BUTTON") end.replaceWith(undoOf(name, label, range));
}

function rangeOf(name) {
  const { low, high, label } = state.info.get(name);
  const range = make("input", {
    type: "range",
    min: low,
    max: high,
    step: (high - low) / 100 || "any",
    data: { attribute: name, role: "range" },
    aria: { label: `Correct ${label}` },
  });
  range.addEventListener("input", () => {
    state.shown.corrections.set(name, Number(range.value));
    rank();
  });
  range.addEventListener("change", rankAndSay);
  return range;
}

const undoOf = (name, label, range) =>
  buttonOf(
    { className: "undo", textContent: "undo", data: { attribute: name, role: "undo" }, aria: { label: `Undo the correction of ${label}` } },
    () => {
      state.shown.corrections.delete(name);
      range.focus();
      range.blur();
      rankAndSay();
    },
  );
