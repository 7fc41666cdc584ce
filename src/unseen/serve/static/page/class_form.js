// The form for a class: a new one, the values of an existing one, or a table of many.

import { ask, count, downloadCsv, make, send } from "/common.js";
import { $, complain, labelled, options, picksFiles, takesFiles } from "./elements.js";
import { change, classPath } from "./model.js";
import { state, when } from "./state.js";
import { sendImages } from "./uploads.js";
import { firstOf, hasAll, leftOut, plain, restsOn, wordsOf } from "./words.js";

const KINDS = { tsv: "text/tab-separated-values", xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" };

const form = {
  edited: null, // the class in the form; null while adding one
  sent: new Map(), // attribute -> value set in the form
  base: new Map(), // values of the class that the form starts from
  images: [], // of the class to add
};

// ---------------------------------------------------------------- values

// A slider and a number for each attribute; without a value, it is at the mean.
export function drawSliders() {
  if (!state.about) return;
  const words = wordsOf($("add-search").value);
  const { attributes } = state.about;
  let group = null;
  const nodes = [];
  for (const a of attributes) {
    if (!hasAll(a.label, words)) continue;
    const alone = attributes.filter((b) => b.group === a.group).length < 2;
    if (a.group !== group && !(alone && a.label.toLowerCase() === a.group.toLowerCase()))
      nodes.push(make("h3", { textContent: a.group }));
    group = a.group;
    nodes.push(sliderOf(a));
  }
  $("add-attributes").replaceChildren(...(nodes.length ? nodes : [make("p", { className: "empty", textContent: "No attribute matches." })]));
}

function sliderOf(a) {
  const { sent, base } = form;
  const step = (a.most - a.least) / 100 || "any";
  const range = make("input", { type: "range", id: `add-${a.name}`, min: a.least, max: a.most, step });
  const number = make("input", { type: "number", step: "any", placeholder: "not set", aria: { label: `${a.label}, value` } });
  const row = make("div", { className: "slider" }, make("label", { htmlFor: range.id }, ...labelled(a, true)), range, number);
  const show = () => {
    const value = sent.has(a.name) ? sent.get(a.name) : (base.get(a.name) ?? null);
    range.value = value ?? a.mean;
    range.setAttribute("aria-valuetext", value === null ? "not set" : plain(value));
    if (document.activeElement !== number) number.value = value === null ? "" : plain(value);
    row.classList.toggle("unset", value === null);
    row.classList.toggle("set", sent.has(a.name));
  };
  range.addEventListener("input", () => {
    sent.set(a.name, Number(range.value));
    show();
  });
  number.addEventListener("input", () => {
    if (number.value === "" && number.validity.badInput) return;
    sent.set(a.name, number.value === "" ? null : Number(number.value)); // an empty field has no value
    show();
  });
  number.addEventListener("blur", show);
  show();
  return row;
}

function startFrom(values) {
  form.sent = new Map();
  form.base = new Map(Object.entries(values));
  drawSliders();
}

// ---------------------------------------------------------------- images

function chooseImages(files) {
  form.images = files;
  $("add-chosen").hidden = !files.length;
  $("add-chosen").firstElementChild.textContent = files.length ? `${count(files.length, "image")}: ${firstOf(files.map((f) => f.name), 3)}` : "";
}

// Further images of a class to add; an existing one gets them in the list.
export function chooseMore(files) {
  if (form.edited === null) chooseImages([...form.images, ...files]);
}

// ---------------------------------------------------------------- the class

function formFor(name, values = {}) {
  form.edited = name;
  $("add").reset();
  $("add-title").textContent = name === null ? "Add a class" : `Edit ${name}`;
  $("add-submit").textContent = name === null ? "Add class" : "Save values";
  $("add-cancel").hidden = name === null;
  $("add-hint").hidden = $("add-like").parentElement.hidden = name !== null;
  $("add-images").hidden = name !== null || Boolean(state.about.no_images);
  chooseImages([]);
  $("add-name").value = name ?? "";
  startFrom(values);
}

let wanted = null; // the class whose values were asked for last

// Values of a class; null if those of another one were asked for meanwhile.
async function valuesOf(name) {
  wanted = name;
  complain("");
  try {
    const values = name ? (await ask(classPath(name))).values : {};
    return name === wanted ? values : null;
  } catch (error) {
    complain(error.message);
    return null;
  }
}

export async function editClass(name) {
  const values = await valuesOf(name);
  if (!values) return;
  formFor(name, values);
  $("add-title").scrollIntoView({ block: "nearest" });
  $("add-name").focus();
}

// Add the class of the form, or change it.
async function submit() {
  const { edited, sent } = form;
  const name = $("add-name").value.trim();
  const values = Object.fromEntries(sent);
  const like = $("add-like").value || null;
  const images = edited === null ? form.images : [];
  const alone = images.length > 0 && !sent.size && !like; // only images, no attributes
  const work = async () => {
    if (edited !== null) return send(classPath(edited), "PATCH", { name, values });
    const found = alone ? { warnings: [] } : await send("/api/classes", "POST", { name, like, values });
    return images.length ? withImages(found, name, images, alone) : found;
  };
  const message = (found) => {
    const uses = images.length ? ` Its scores use ${restsOn(found.classes[0])}.` : "";
    const kept = state.about.saves ? "It is saved with the run." : "It is lost when the server stops.";
    return `${name} is ${edited === null ? "added" : "changed"}.${uses} ${kept}`;
  };
  if (await change(work, message)) {
    formFor(null);
    $("add-name").focus();
  }
}

// The answer for a new class together with that for its images.
async function withImages(found, name, images, alone) {
  const given = await sendImages(name, images, state.about.limits, alone).catch((error) => {
    if (alone) throw error;
    return { classes: found.classes, failed: [{ error: error.message }], warnings: [] };
  });
  return { ...found, classes: given.classes, warnings: [...found.warnings, ...leftOut(given)] };
}

// ---------------------------------------------------------------- tables

async function addTable(file) {
  const headers = { "Content-Type": KINDS[file.name.split(".").pop().toLowerCase()] ?? "text/csv" };
  await change(
    async () => ask("/api/classes", { method: "POST", headers, body: await file.arrayBuffer() }),
    (found) => `${found.classes.length} added: ${found.classes.map((c) => c.name).join(", ")}.`,
  );
}

async function downloadTemplate() {
  await state.loaded;
  const { template } = state.about;
  downloadCsv("classes-to-add.csv", [["class", ...Object.keys(template)], ["New class", ...Object.values(template)]]);
}

async function save() {
  complain("");
  try {
    const { folder } = await send("/api/classes/save", "POST", {});
    $("added").replaceChildren(make("p", { className: "done", textContent: `The classes are saved in ${folder}.` }));
  } catch (error) {
    complain(error.message);
  }
}

// Names in "Start from"; the chosen one stays chosen.
function drawNames() {
  const select = $("add-like");
  const [like, scratch] = [select.value, select.options[0]];
  const names = state.classes.map((c) => c.name);
  options(select, names, null);
  select.prepend(scratch);
  select.value = names.includes(like) ? like : "";
}

when("classes", drawNames);
picksFiles($("add-files"), chooseMore);
picksFiles($("csv"), ([file]) => addTable(file));
takesFiles($("add-drop"), chooseMore);
$("add-chosen").lastElementChild.addEventListener("click", () => chooseImages([]));
$("add-cancel").addEventListener("click", () => formFor(null));
$("add-like").addEventListener("change", async () => {
  const values = await valuesOf($("add-like").value);
  if (values) startFrom(values);
});
$("add-search").addEventListener("input", drawSliders);
$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("template").addEventListener("click", downloadTemplate);
$("save").addEventListener("click", save);
