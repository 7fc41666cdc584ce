// The model and its classes, as the server has them; requests that change them.

import { ask, make } from "/common.js";
import { rank } from "./answer.js";
import { $, complain, note } from "./elements.js";
import { state, tell, when } from "./state.js";

export const classPath = (name) => `/api/classes/${encodeURIComponent(name)}`;

let listed = ""; // what the server last said of the classes

// What the server says of the model.
export async function know() {
  state.about = await ask("/api/about");
  state.info = new Map(state.about.attributes.map((a) => [a.name, a]));
}

export async function loadClasses(known = know()) {
  const [found] = await Promise.all([ask("/api/classes"), known]);
  state.classes = found.classes;
  listed = JSON.stringify(found);
  note("outdated", found.outdated && `The classes were changed elsewhere, too: ${found.outdated}.`);
  tell("classes");
}

// A terminal may have changed the classes.
async function followClasses() {
  if (state.about && JSON.stringify(await ask("/api/classes")) !== listed) await loadClasses();
}

// Change the classes, then show the result here and in the answer for the image. The message tells what
// was done; null if it is shown elsewhere.
export async function change(work, message) {
  complain("");
  try {
    await state.loaded;
    const found = await work();
    const text = message(found);
    await loadClasses();
    $("added").replaceChildren(...(text === null ? [] : report(found, text)));
    if (state.shown) await rankAmong(new Set(state.classes.map((c) => c.name)));
    return true;
  } catch (error) {
    complain(error.message);
    $("alert").scrollIntoView({ block: "nearest" });
    return false;
  }
}

function report(found, text) {
  const near = Object.entries(found.nearest ?? {}).filter(([, names]) => names.length);
  return [
    make("p", { className: "done", textContent: text }),
    ...near.map(([name, names]) => make("p", { className: "hint", textContent: `${near.length > 1 ? `${name}: nearest` : "Nearest"} by attributes: ${names.join(", ")}.` })),
    ...found.warnings.map((warning) => make("p", { className: "note", textContent: warning })),
  ];
}

function rankAmong(names) {
  const { shown } = state;
  if (!names.has(shown.target)) shown.target = null;
  if (!names.has(shown.rival)) shown.rival = null;
  return rank();
}

when("tab", (panel) => {
  if (panel === "classes") followClasses().catch(() => {});
});
addEventListener("focus", () => followClasses().catch(() => {}));
