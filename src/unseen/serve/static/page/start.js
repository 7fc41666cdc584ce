// The page: requests the JSON API and draws the answers. No build step, no external resources.

import { drawAbout } from "./about.js";
import { look, offerOccasions } from "./answer.js";
import { findCamera } from "./camera.js";
import { chooseMore, drawSliders } from "./class_form.js";
import { addImages } from "./class_list.js";
import { $, complain } from "./elements.js";
import { drawExamples } from "./image.js";
import { runBatch } from "./many.js";
import { know, loadClasses } from "./model.js";
import "./ranking.js";
import "./review.js";
import { state } from "./state.js";
import { isOpen, openNamedTab, openTab } from "./tabs.js";
import "./why.js";

// Pasted images go to what is open.
function paste(files) {
  if (isOpen("classes") && !state.about?.no_images) return state.opened === null ? chooseMore(files) : addImages(state.opened, files);
  if (isOpen("batch") || isOpen("review")) return runBatch(files);
  openTab("image");
  return look(files[0]);
}

window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((f) => f.type.startsWith("image/"));
  if (!files.length) return;
  event.preventDefault();
  paste(files);
});
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault()); // beside a field

async function showModel() {
  await know();
  drawAbout();
  offerOccasions(state.about);
  drawSliders();
}

async function start() {
  state.loaded = showModel();
  try {
    await Promise.all([loadClasses(state.loaded), drawExamples(), findCamera()]);
  } catch (error) {
    $("model").textContent = "unseen";
    complain(error.message);
  }
}

openNamedTab();
start();
