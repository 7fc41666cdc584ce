// Elements that several parts of the page use.

import { make } from "/common.js";

export const $ = (id) => document.getElementById(id);

// Tell a screen reader.
export function say(text) {
  $("status").textContent = text;
}

export function complain(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

// Show text in an element, or hide it without one.
export function note(id, text) {
  $(id).textContent = text || "";
  $(id).hidden = !text;
}

export const chip = (seen) =>
  make("span", {
    className: `chip ${seen ? "seen" : "unseen"}`,
    title: seen ? "has training images" : "has no training images",
    textContent: seen ? "seen" : "unseen",
  });

// Label of an attribute; under the heading of its group, only screen readers get the group.
export function labelled({ label, group }, grouped) {
  if (!grouped || !label.startsWith(`${group}: `)) return [label];
  return [make("span", { className: "hidden", textContent: `${group}: ` }), label.slice(group.length + 2)];
}

// A button of a list or a row.
export function buttonOf(properties, act, ...children) {
  const button = make("button", { type: "button", ...properties }, ...children);
  button.addEventListener("click", act);
  return button;
}

export function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  select.value = chosen ?? "";
}

// Files chosen with an input; the same ones can be chosen again.
export function picksFiles(input, take) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) take(files);
  });
}

// Files dropped on an element.
export function takesFiles(zone, take) {
  for (const kind of ["dragover", "dragenter"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
}
