// The list of classes: their images, and a dialog to rename or remove one.

import { ask, count, make, send } from "/common.js";
import { hasCamera, takeImages } from "./camera.js";
import { editClass } from "./class_form.js";
import { $, buttonOf, chip, complain, picksFiles, say, takesFiles } from "./elements.js";
import { change, classPath } from "./model.js";
import { state, when } from "./state.js";
import { imagesPath, sendImages } from "./uploads.js";
import { hasAll, leftOut, restsOn, wordsOf } from "./words.js";

let told = null; // last result for the open class, as nodes
let settle = null; // resolves the promise of the open dialog

function drawClasses() {
  const words = wordsOf($("class-search").value);
  const found = state.classes.filter((c) => hasAll(c.name, words));
  found.sort((a, b) => Number(b.change === "added") - Number(a.change === "added")); // added classes first
  $("classes-title").textContent = count(state.classes.length, "class");
  $("class-list").replaceChildren(...found.map(rowOf));
}

function rowOf(c) {
  const action = (text, label, act, aria) => buttonOf({ className: "quiet", textContent: text, aria: { label, ...aria } }, () => act(c.name));
  const own = (text) => make("span", { className: "chip own", textContent: text });
  const open = state.opened === c.name;
  const name = make(
    "span",
    { className: "name" },
    make("span", { textContent: c.name }),
    chip(c.seen),
    c.change ? own(c.change) : null,
    c.images ? own(count(c.images, "image")) : null,
    c.expectation ? make("span", { className: "expectation", textContent: c.expectation }) : null,
  );
  const takesImages = !state.about.no_images;
  const buttons = make(
    "div",
    { className: "buttons" },
    takesImages ? action("Images", `Images of ${c.name}`, toggleImages, { expanded: String(open) }) : null,
    action("Edit", `Edit ${c.name}`, editClass),
    action("Rename", `Rename ${c.name}`, renameClass),
    action("Remove", `Remove ${c.name}`, removeClass),
  );
  const row = make("li", { data: { name: c.name } }, name, buttons, open ? imagesPanel(c) : null);
  if (takesImages) takesFiles(row, (files) => addImages(c.name, files));
  return row;
}

function toggleImages(name) {
  state.opened = state.opened === name ? null : name;
  told = null;
  drawClasses();
  [...$("class-list").querySelectorAll("[aria-expanded]")].find((b) => b.closest("li").dataset.name === name)?.focus();
}

// ---------------------------------------------------------------- images

function imagesPanel(c) {
  const input = make("input", { type: "file", accept: "image/*", multiple: true, aria: { label: `Add images of ${c.name}` } });
  picksFiles(input, (files) => addImages(c.name, files));
  const drop = make(
    "label",
    { className: "drop small" },
    input,
    make("span", { className: "drop-text", textContent: "Choose images" }),
    make("span", { className: "drop-help", textContent: `of ${c.name}, drop them here, or paste them` }),
  );
  const list = make("ul", { className: "thumbs", aria: { label: `Images of ${c.name}` } });
  if (c.images) fillImages(list, c.name);
  const score = make("p", { className: "hint", textContent: `Scores of ${c.name} use ${restsOn(c)}.` });
  const camera = buttonOf({ className: "quiet", textContent: "Use the camera", hidden: !hasCamera() }, async () => {
    const files = await takeImages(true);
    if (files.length) addImages(c.name, files);
  });
  return make("div", { className: "own-images" }, ...(told ?? [score]), list, drop, camera);
}

async function fillImages(list, name) {
  try {
    const { images } = await ask(imagesPath(name));
    list.replaceChildren(...images.map((i) => entryOf(name, i)));
  } catch (error) {
    complain(error.message);
  }
}

function entryOf(name, { image, sha256, thumbnail, added }) {
  const label = `Remove the image ${image || "without a name"}, ${sha256.slice(0, 6)}`;
  const remove = buttonOf({ className: "quiet", textContent: "×", title: "Remove", aria: { label } }, () => removeImages(name, [sha256]));
  const none = () => make("span", { className: "none", textContent: image || "image" });
  const small = thumbnail ? make("img", { src: `/api/thumbnails/${sha256}`, alt: image, loading: "lazy" }) : none();
  small.addEventListener("error", () => small.replaceWith(none()));
  return make("li", { title: `${image}, added ${new Date(added).toLocaleString()}` }, small, remove);
}

// ---------------------------------------------------------------- changes of images

export const addImages = (name, files) =>
  changeImages(name, () => sendImages(name, files, state.about.limits), ({ added }) => `${count(added.length, "image")} added.`);

function removeImages(name, digests) {
  const query = new URLSearchParams(digests.map((digest) => ["image", digest]));
  return changeImages(name, () => ask(`${imagesPath(name)}?${query}`, { method: "DELETE" }), () => `${count(digests.length, "image")} removed.`);
}

async function changeImages(name, work, message) {
  state.opened = name;
  told = null;
  await change(work, (found) => {
    const said = `${message(found)} Scores of ${name} now use ${restsOn(found.classes[0])}.`;
    const done = make("p", { className: "done" }, said);
    if (found.added?.length) done.append(" ", buttonOf({ className: "link", textContent: "Undo" }, () => removeImages(name, found.added)));
    told = [done, ...leftOut(found).map((text) => make("p", { className: "note", textContent: text }))];
    say(said);
    return null; // shown at the class
  });
}

// ---------------------------------------------------------------- names

async function renameClass(name) {
  const to = await dialog({ title: `Rename ${name}`, value: name, ok: "Rename" });
  if (!to || to === true || to === name) return;
  await change(
    () => send(classPath(name), "PATCH", { name: to }),
    () => `Renamed ${name} to ${to}.`,
  );
}

async function removeClass(name) {
  const text = state.about.saves ? "The class is also removed from the saved run." : "Classes of the saved run return when the server restarts; added classes don’t.";
  if (!(await dialog({ title: `Remove ${name}?`, text, ok: "Remove", danger: true }))) return;
  await change(() => ask(classPath(name), { method: "DELETE" }), () => `Removed ${name}.`);
}

// Ask for a confirmation, or for a value: the value, or true; null if it is cancelled.
function dialog({ title, text, value, ok, danger }) {
  settle?.(null);
  $("dialog-title").textContent = title;
  $("dialog-text").textContent = text ?? "";
  $("dialog-field").hidden = value == null;
  $("dialog-input").value = value ?? "";
  $("dialog-input").required = value != null;
  $("dialog-ok").textContent = ok;
  $("dialog-ok").classList.toggle("danger", Boolean(danger));
  const box = $("dialog");
  box.returnValue = "cancel";
  box.showModal();
  if (value != null) $("dialog-input").select();
  return new Promise((done) => {
    settle = done;
  });
}

$("dialog").addEventListener("close", () => {
  if ($("dialog").open) return; // a late event of an earlier dialog
  settle?.($("dialog").returnValue === "ok" ? $("dialog-input").value.trim() || true : null);
  settle = null;
});
$("class-search").addEventListener("input", drawClasses);
when("classes", drawClasses);
