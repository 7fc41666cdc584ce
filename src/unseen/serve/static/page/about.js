// What the page says of the model: the header, what it cannot do here, its accuracy, and facts.

import { count, make, percent } from "/common.js";
import { $, note } from "./elements.js";
import { state, when } from "./state.js";
import { capital } from "./words.js";

function drawHeader() {
  const { model, attributes } = state.about;
  const unseen = state.classes.filter((c) => !c.seen).length;
  $("model").textContent = model;
  $("summary").textContent = `${count(state.classes.length, "class")}, ${count(attributes.length, "attribute")}; ${count(unseen, "class")} without training images.`;
  document.title = `${model} – unseen`;
}

// What stays the same while the server runs.
export function drawAbout() {
  const { about } = state;
  note("no-corrections", about.no_corrections && `Attributes cannot be corrected here: ${about.no_corrections}.`);
  $("slide-head").hidden = $("reset").hidden = Boolean(about.no_corrections);
  note("no-images", about.no_images && `Classes cannot have images here: ${about.no_images}.`);
  $("add-images").hidden = Boolean(about.no_images);
  $("save-line").hidden = !about.can_save;
  const terminal = ["Changes made here last until the server stops. Changes by ", make("code", { textContent: "unseen classes" }), " in a terminal appear here."];
  $("saves").replaceChildren(...(about.saves ? ["Changes are saved with the run."] : terminal));
  const none = make("p", { className: "empty", textContent: "This model has no test results." });
  $("metrics").replaceChildren(...(about.metrics.length ? about.metrics.map(metricOf) : [none]));
  const facts = Object.entries(factsOf(about));
  $("facts").replaceChildren(...facts.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]));
}

function metricOf({ name, value, low, high, meaning, estimated }) {
  const share = (v) => `${(100 * v).toFixed(1)}%`;
  const fill = make("span");
  fill.style.width = `${100 * value}%`;
  const range = low == null ? "" : ` 95% interval ${share(low)} to ${share(high)}.`;
  return make(
    "div",
    { className: "metric" },
    make("p", {}, make("span", { textContent: estimated ? `${name} (estimated)` : name }), make("span", { textContent: share(value) })),
    make("div", { className: "meter", aria: { hidden: "true" } }, fill),
    make("p", { className: "hint", textContent: `${capital(meaning)}.${range}` }),
  );
}

function factsOf({ method, backbone, data, protocol, calibrated, threshold, limits, version }) {
  return {
    Method: method,
    Backbone: backbone,
    Data: data,
    Protocol: protocol,
    Confidence: calibrated ? "fitted on validation classes" : "not calibrated: use it only to rank answers",
    Unknown: threshold == null ? "never: no threshold was chosen" : `below ${percent(threshold)} confidence`,
    Limits: `${Math.round(limits.upload_bytes / 2 ** 20)} MB per request, ${limits.image_pixels / 1e6} megapixels per image`,
    Images: "kept in memory during analysis, never stored; for support images, features, file names and checksums are saved",
    Version: `unseen ${version}`,
  };
}

when("classes", drawHeader);
