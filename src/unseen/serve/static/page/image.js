// The image with a heat map, and the ways to choose one: a file, a drop, the camera, an example.

import { ask, drawHeat, make, request } from "/common.js";
import { look } from "./answer.js";
import { takeImages } from "./camera.js";
import { $, buttonOf, complain, picksFiles, takesFiles } from "./elements.js";
import { labelOf, state, when } from "./state.js";
import { capital } from "./words.js";

const [SMALLEST, LARGEST] = [480, 1000]; // longest side of the canvas

function drawImage() {
  const { bitmap, answer, pinned, hovered, heats } = state.shown;
  const canvas = $("canvas");
  const longest = Math.max(bitmap.width, bitmap.height);
  const scale = Math.min(1, LARGEST / longest) * Math.max(1, SMALLEST / longest);
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const attribute = hovered ?? pinned;
  const name = answer.image;
  $("legend").hidden = !attribute;
  if (!attribute) {
    $("caption").textContent = name;
    canvas.setAttribute("aria-label", `Image ${name}`);
    return;
  }
  const text = `heat map of ${labelOf(attribute)}`;
  $("caption").textContent = capital(text);
  canvas.setAttribute("aria-label", `Image ${name}, with the ${text}`);
  const [x, y] = [canvas.width / answer.width, canvas.height / answer.height];
  drawHeat(canvas, heats.get(attribute), answer.crop.map((v, i) => v * (i % 2 ? y : x)));
}

export async function drawExamples() {
  const { examples } = await ask("/api/examples").catch(() => ({ examples: [] }));
  $("examples").hidden = !examples.length;
  $("example-list").replaceChildren(
    ...examples.map((name, i) => {
      const image = make("img", { src: `/api/examples/${i}?small=1`, alt: name, title: name });
      return buttonOf({ className: "example" }, () => lookAtExample(name, i), image);
    }),
  );
}

async function lookAtExample(name, i) {
  try {
    const answer = await request(`/api/examples/${i}`);
    look(new File([await answer.blob()], `${name}.jpg`, { type: "image/jpeg" }));
  } catch (error) {
    complain(error.message);
  }
}

when("image", () => {
  $("drop").classList.add("filled");
  document.querySelector("#drop .drop-text").textContent = "Choose another image";
  $("figure").hidden = $("look-controls").hidden = false;
});
when("answer", drawImage);
when("heat", drawImage);
picksFiles($("file"), ([file]) => look(file));
for (const id of ["drop", "figure"]) takesFiles($(id), ([file]) => look(file));
$("camera-look").addEventListener("click", async () => {
  const [file] = await takeImages(false);
  if (file) look(file);
});
