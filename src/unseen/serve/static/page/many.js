// Many images: predicts them one after another, and again once the classes have changed.

import { ask, count, download, downloadCsv, request } from "/common.js";
import { occasion } from "./answer.js";
import { $, complain, picksFiles, say, takesFiles } from "./elements.js";
import { clearRows, drawRows, placeRow, replaceRow } from "./results.js";
import { labelOf, originOf, state, tell } from "./state.js";
import { openTab } from "./tabs.js";
import { formOf, tooLarge } from "./uploads.js";
import { predictionTable } from "./words.js";

const LONGEST_WAIT = 10; // seconds before a busy server is asked again

async function predict(file) {
  const problem = tooLarge(file, state.about.limits);
  if (problem) return { image: file.name, error: problem };
  for (;;) {
    const form = formOf("images", [file], { among: $("batch-among").value, ...occasion() });
    try {
      return (await ask("/api/predict", { method: "POST", body: form })).predictions[0];
    } catch (error) {
      if (error.status !== 429 || state.batch.stop) return { image: file.name, error: error.message };
      await new Promise((done) => setTimeout(done, 1000 * Math.min(error.wait, LONGEST_WAIT)));
    }
  }
}

// First names of an answer's classes: they may be renamed before it is reviewed.
const originsOf = (found) => (found.classes ?? []).map((c) => originOf(c.name));

export const runBatch = (files) =>
  work(files, async (file) => {
    const found = await predict(file);
    const row = { file, found, origins: originsOf(found) };
    state.batch.rows.push(row);
    placeRow(row);
  });

// The same images with the current classes.
export const predictAgain = () =>
  work([...state.batch.rows], async (row) => {
    row.found = await predict(row.file);
    row.origins = originsOf(row.found);
    replaceRow(row);
  });

// One after another, until all are done or the user stops.
async function work(items, one) {
  const { batch } = state;
  if (batch.running) return complain("Wait until the current images are done, or stop them first.");
  complain("");
  Object.assign(batch, { running: true, stop: false });
  let done = 0;
  try {
    await state.loaded;
    show(items.length);
    say(`Processing ${count(items.length, "image")}.`);
    tellProgress(done, items.length);
    for (const item of items) {
      if (batch.stop) break;
      await one(item);
      done += 1;
      tellProgress(done, items.length);
    }
  } catch (error) {
    return complain(error.message);
  } finally {
    batch.running = false;
    $("review-running").hidden = true;
    setButtons();
  }
  drawRows();
  await tell("predicted");
  const failed = batch.rows.filter((r) => r.found.error).length;
  say(`${count(done, "image")} done${failed ? `, ${failed} could not be read` : ""}.`);
}

function show(most) {
  setButtons();
  for (const id of ["batch-progress", "batch-region", "batch-filter", "review-running"]) $(id).hidden = false;
  $("progress").max = most;
}

function tellProgress(done, most) {
  $("progress").value = done;
  $("progress-text").textContent = `${done} of ${most}`;
  $("review-running").textContent = `Predicting: ${done} of ${count(most, "image")}.`;
}

function setButtons() {
  const { rows, running } = state.batch;
  $("batch-stop").disabled = !running;
  for (const kind of ["review", "csv", "xlsx", "json"]) $(`batch-${kind}`).disabled = !rows.length;
  for (const kind of ["again", "clear"]) $(`batch-${kind}`).disabled = !rows.length || running;
}

function clear() {
  state.batch.rows.length = 0;
  clearRows();
  for (const id of ["batch-progress", "batch-region", "batch-filter"]) $(id).hidden = true;
  setButtons();
}

// ---------------------------------------------------------------- downloads

const found = () => state.batch.rows.map((r) => r.found);
const table = () => predictionTable(found(), state.about, labelOf);

export async function downloadXlsx(name, [columns, ...rows]) {
  const body = JSON.stringify({ columns, rows: rows.map((row) => row.map((value) => value ?? null)) });
  const answer = await request("/api/workbook", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  download(name, answer.headers.get("Content-Type"), await answer.blob());
}

picksFiles($("files"), runBatch);
takesFiles($("batch-drop"), runBatch);
$("batch-stop").addEventListener("click", () => {
  state.batch.stop = true;
});
$("batch-again").addEventListener("click", predictAgain);
$("batch-review").addEventListener("click", () => openTab("review", true));
$("batch-clear").addEventListener("click", clear);
$("batch-csv").addEventListener("click", () => downloadCsv("predictions.csv", table()));
$("batch-xlsx").addEventListener("click", () => downloadXlsx("predictions.xlsx", table()).catch((error) => complain(error.message)));
$("batch-json").addEventListener("click", () =>
  download("predictions.json", "application/json", JSON.stringify({ predictions: found() }, null, 2)),
);
