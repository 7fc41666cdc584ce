// The page: requests the JSON API and draws the answers. No build step, no external resources.

import { ask, count, downloadCsv, download, drawHeat, make, percent, send, signed } from "/common.js";
import { openReview } from "/review.js";

const $ = (id) => document.getElementById(id);
const FEW = 12;
const FIRST = 5;
const EVERY = 1000;
let about = null;
let info = new Map(); // attribute name -> its entry in /api/about
let classes = [];
let listed = ""; // what the server last said of them
let shown = null; // the image: {name, bitmap, answer, heats, corrections, all, target, rival, pinned, hovered}
let batch = { rows: [], running: false, stop: false };

// ---------------------------------------------------------------- small helpers

const plain = (value) => String(Number(value.toPrecision(3)));
// Label of an attribute; under the heading of its group, only screen readers get the group.
function labelled({ label, group }, grouped) {
  if (!grouped || !label.startsWith(`${group}: `)) return [label];
  return [make("span", { className: "hidden", textContent: `${group}: ` }), label.slice(group.length + 2)];
}

const labelOf = (name) => info.get(name)?.label ?? name;
const chip = (seen) =>
  make("span", {
    className: `chip ${seen ? "seen" : "unseen"}`,
    title: seen ? "has training images" : "has no training images",
    textContent: seen ? "seen" : "unseen",
  });

function say(text) {
  $("status").textContent = text;
}

function complain(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

const classPath = (name) => `/api/classes/${encodeURIComponent(name)}`;

function tooLarge(file) {
  const limit = about.limits.upload_bytes;
  return file.size > limit - 4096
    ? `${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; the limit is ${Math.round(limit / 2 ** 20)} MB.`
    : null;
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  select.value = chosen ?? "";
}

// ---------------------------------------------------------------- tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function openTab(tab, focus = false) {
  if (tab.getAttribute("aria-selected") !== "true") complain(""); // it was about the other tab
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  if (tab === $("tab-review")) drawReview();
  if (tab === $("tab-classes")) followClasses().catch(() => {});
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => openTab(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step ? tabs.at((i + step) % tabs.length) : { Home: tabs[0], End: tabs.at(-1) }[event.key];
    if (next) {
      event.preventDefault();
      openTab(next, true);
    }
  });
});

// ---------------------------------------------------------------- the image

async function look(file, keep = false) {
  complain("");
  const problem = tooLarge(file);
  if (problem) return complain(problem);
  const bitmap = await createImageBitmap(file).catch(() => null);
  const form = new FormData();
  form.append("image", file, file.name || "pasted image");
  form.append("top", String(EVERY));
  form.append("among", $("among").value);
  for (const [name, value] of Object.entries(occasion())) form.append(name, value);
  form.append("thumbnails", "1");
  if (!bitmap) form.append("preview", "1");
  $("answer-card").classList.add("busy");
  say("Analyzing the image.");
  try {
    const answer = await ask("/api/explain", { method: "POST", body: form });
    shown = {
      file,
      bitmap: bitmap ?? (await preview(answer.preview)),
      answer,
      heats: new Map(answer.reasons.map((r) => [r.attribute, r.heat])),
      corrections: new Map(keep && shown ? shown.corrections : []),
      top: FIRST,
      every: false,
      target: null,
      rival: null,
      pinned: null,
      hovered: null,
      apart: null,
    };
    hideSeparation();
    $("drop").classList.add("filled");
    document.querySelector("#drop .drop-text").textContent = "Choose another image";
    for (const id of ["figure", "look-controls", "why"]) $(id).hidden = false;
    $("answer-empty").hidden = true;
    drawNearest(answer.nearest);
    if (shown.corrections.size) await rank();
    else drawAnswer();
    announce();
  } catch (error) {
    complain(error.message);
    say("");
  } finally {
    $("answer-card").classList.remove("busy");
  }
}

async function preview(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return createImageBitmap(image);
}

// As the model saw the image; corrections do not change them.
function drawNearest(nearest) {
  $("nearest-card").hidden = !nearest.length;
  $("nearest").replaceChildren(
    ...nearest.map((n) =>
      make(
        "li",
        { title: `${n.file}, similarity ${n.similarity.toFixed(2)}` },
        n.thumbnail ? make("img", { src: n.thumbnail, alt: "" }) : null,
        make("span", { textContent: n.name }),
        n.thumbnail ? null : make("span", { className: "hint", textContent: n.file }),
      ),
    ),
  );
}

function announce() {
  const best = shown.answer.classes[0];
  const sure = `${best.name}, ${percent(best.confidence)} confidence, ${best.seen ? "a seen" : "an unseen"} class.`;
  say(shown.answer.unknown ? `${coarser(shown.answer) || "Unknown"}. The closest is ${sure}` : sure);
}

let ranking = false;
let again = false;

// Rank the look with the corrections; while a request is running, only the latest one waits.
async function rank() {
  if (!shown) return;
  if (ranking) {
    again = true;
    return;
  }
  ranking = true;
  try {
    do {
      again = false;
      const mine = shown;
      const request = {
        look: mine.answer.look,
        corrections: Object.fromEntries(mine.corrections),
        top: EVERY,
        among: $("among").value,
        ...occasion(),
        target: mine.target,
        rival: mine.rival,
      };
      const found = await send("/api/rank", "POST", request);
      if (mine === shown) {
        Object.assign(shown.answer, found);
        complain("");
        drawAnswer();
      }
    } while (again);
  } catch (error) {
    complain(error.message);
  } finally {
    ranking = false;
  }
}

function drawAnswer() {
  drawRanking();
  drawWhy();
  drawImage();
}

// Place and month, for a server with a prior.
const occasion = () =>
  Object.fromEntries(["place", "month"].filter((id) => $(id).value).map((id) => [id, $(id).value]));

function offerOccasions() {
  for (const [id, known, start, words] of [
    ["place", about.places, about.place, String],
    ["month", about.months, about.month, (m) => new Date(2000, m - 1).toLocaleString("en", { month: "long" })],
  ]) {
    $(id).parentElement.hidden = !known.length;
    const choices = known.length ? [["any", "any"], ...known.map((value) => [String(value), words(value)])] : [];
    $(id).replaceChildren(...choices.map(([value, text]) => make("option", { value, textContent: text })));
    if (start) $(id).value = start;
  }
}

// "Ardeidae (family), probably Night Heron"
function coarser({ answer, answer_rank: rank, ranks }) {
  const found = ranks?.find((taxon) => taxon.rank === rank && taxon.name === answer);
  return found && `${found.name} (${found.rank}), probably ${found.probably}`;
}

function drawRanking() {
  const { classes: ranked, unknown, target, ranks, why_coarser: why, without_prior: without, prior } = shown.answer;
  const said = unknown && coarser(shown.answer);
  $("unknown").hidden = !unknown;
  $("unknown").textContent = unknown
    ? `${said || "Unknown"}: no class reaches ${percent(about.threshold)} confidence. These are the closest.`
    : "";
  $("taxa").hidden = !ranks?.length;
  $("taxa").textContent = (ranks ?? []).map((t) => `${t.rank}: ${t.name} ${percent(t.confidence)}`).join(" · ");
  $("why-coarser").hidden = !why?.length;
  $("why-coarser").lastElementChild.replaceChildren(...(why ?? []).map((text) => make("li", { textContent: text })));
  $("prior").hidden = !without;
  $("prior").textContent = without
    ? `From the image alone: ${without.name}, ${percent(without.confidence)}. Place and month give ${ranked[0].name} ${percent(prior)} before the image is seen.`
    : "";
  const small = new Map(classes.filter((c) => c.thumbnail).map((c) => [c.name, c.thumbnail]));
  const focused = document.activeElement?.closest?.("#ranking button")?.dataset.name;
  $("ranking").replaceChildren(
    ...ranked.slice(0, shown.top).map((c) => {
      const fill = make("span");
      fill.style.width = `${Math.max(100 * c.confidence, 0.5)}%`;
      const button = make(
        "button",
        {
          type: "button",
          data: { name: c.name },
          aria: { pressed: String(c.name === target.name) },
          title: "Explain this class",
        },
        small.has(c.name) ? make("img", { src: small.get(c.name), alt: "", title: `an image of ${c.name}`, loading: "lazy" }) : null,
        make("span", { className: "name" }, make("span", { textContent: c.name }), chip(c.seen)),
        make("span", { className: "percent", textContent: percent(c.confidence) }),
        make("span", { className: "meter", aria: { hidden: "true" } }, fill),
      );
      button.addEventListener("click", () => choose(c.name, null));
      return make("li", {}, button);
    }),
  );
  if (focused) [...$("ranking").querySelectorAll("button")].find((b) => b.dataset.name === focused)?.focus();
  $("more").hidden = ranked.length <= shown.top;
}

function choose(target, rival) {
  shown.target = target;
  shown.rival = rival === target ? null : rival;
  return rank();
}

function drawWhy() {
  const { target, rival, classes: ranked } = shown.answer;
  const names = ranked.map((c) => c.name);
  $("why-title").textContent = `Why ${target.name}`;
  options($("target"), names, target.name);
  options($("rival"), names.filter((n) => n !== target.name), rival?.name);
  const against = $("measure").value === "against" && rival;
  $("why-hint").textContent = against
    ? `Bars to the right favor ${target.name}, bars to the left favor ${rival.name}.`
    : `Bars to the right are evidence for ${target.name}, bars to the left evidence against it. Point at an attribute to see its heat map.`;
  $("reset").disabled = !shown.corrections.size;
  const terms = shown.answer.terms.filter((t) => (against ? t.against : t.evidence));
  $("account").textContent = against
    ? `Together, the bars add up to the lead of ${target.name} over ${rival.name}.`
    : `Together, the bars add up to the score of ${target.name}: ${signed(target.score)}.`;
  if (shown.apart && shown.apart !== `${target.name}\n${rival.name}`) hideSeparation();
  const value = (r) => (against ? r.against : r.evidence);
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const sorted = [...shown.answer.reasons].sort((a, b) => Math.abs(value(b)) - Math.abs(value(a)));
  const found = sorted.filter((r) => words.every((w) => labelOf(r.attribute).toLowerCase().includes(w)));
  const grouped = shown.every && !words.length;
  let rows = found;
  if (!shown.every && !words.length) {
    rows = found.slice(0, FEW);
    rows.push(...found.slice(FEW).filter((r) => shown.corrections.has(r.attribute)));
  }
  const largest = Math.max(...[...sorted, ...terms.filter((t) => t.name !== AVERAGE)].map((r) => Math.abs(value(r))), 1e-9);
  const row = (r) => attributeRow(r, value(r), largest, grouped);
  const active = document.activeElement;
  const back = active?.dataset?.attribute ? [active.dataset.attribute, active.dataset.role] : null;
  if (active?.type === "range" && active.dataset.attribute) {
    update(value, largest); // do not replace the slider in use
    return;
  }
  const list = $("attributes");
  if (grouped) {
    const groups = new Map();
    for (const r of rows) {
      const group = info.get(r.attribute).group;
      groups.set(group, [...(groups.get(group) ?? []), r]);
    }
    list.replaceChildren(
      ...terms.map((t) => termRow(t, value(t), largest)),
      ...[...groups].flatMap(([group, members]) => [...heading(group, members), ...members.map(row)]),
    );
  } else {
    const beside = words.length ? [] : terms.map((t) => termRow(t, value(t), largest));
    list.replaceChildren(...beside, ...rows.map(row));
    if (!rows.length) list.append(make("p", { className: "empty", textContent: "No attribute matches." }));
  }
  if (back) [...list.querySelectorAll(`[data-role="${back[1]}"]`)].find((n) => n.dataset.attribute === back[0])?.focus();
  const total = shown.answer.reasons.length;
  $("all-attributes").hidden = words.length > 0 || total <= FEW;
  $("all-attributes").textContent = shown.every ? "Show the strongest only" : `Show all ${count(total, "attribute")}, by group`;
  $("all-attributes").setAttribute("aria-expanded", String(shown.every));
}

// No heading above a single attribute of the same name.
const heading = (group, [first, ...more]) =>
  more.length || labelOf(first.attribute).toLowerCase() !== group.toLowerCase() ? [make("h3", { textContent: group })] : [];

// Update the numbers of existing rows.
function update(value, largest) {
  const byName = new Map(shown.answer.reasons.map((r) => [r.attribute, r]));
  for (const node of $("attributes").querySelectorAll(".term")) {
    const term = shown.answer.terms.find((t) => t.name === node.dataset.row);
    if (term) node.querySelector(".bar").replaceWith(bar(value(term), largest));
  }
  for (const node of $("attributes").querySelectorAll(".attribute:not(.term)")) {
    const r = byName.get(node.dataset.row);
    node.querySelector(".bar").replaceWith(bar(value(r), largest));
    fillSlide(node.querySelector(".slide"), r);
    fillAbsent(node, r);
  }
}

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

// It separates no classes, and would dwarf the other bars.
const AVERAGE = "what an average image gets";

// Contributions other than attributes.
const termRow = ({ name }, value, largest) =>
  make("div", { className: "attribute term", data: { row: name } }, make("span", { textContent: name }), bar(value, largest), make("span"));

function attributeRow(reason, value, largest, grouped) {
  const name = reason.attribute;
  const button = make("button", {
    type: "button",
    className: "show",
    data: { attribute: name, role: "show" },
    aria: { pressed: String(shown.pinned === name) },
    title: "Show the heat map",
  }, make("span", {}, ...labelled(info.get(name), grouped)), make("span", { className: "absent" }));
  button.addEventListener("click", () => {
    shown.pinned = shown.pinned === name ? null : name;
    drawWhy();
    drawImage();
    say(shown.pinned ? `The image shows the heat map of ${labelOf(name)}.` : "The heat map is hidden.");
  });
  const slide = make("div", { className: "slide" });
  const row = make("div", { className: "attribute", data: { row: name } }, button, bar(value, largest), slide);
  fillSlide(slide, reason);
  fillAbsent(row, reason);
  const hover = (on) => () => {
    shown.hovered = on ? name : null;
    drawImage();
  };
  row.addEventListener("pointerenter", hover(true));
  row.addEventListener("pointerleave", hover(false));
  row.addEventListener("focusin", hover(true));
  row.addEventListener("focusout", hover(false));
  return row;
}

const fillAbsent = (row, { score, typical }) => {
  row.querySelector(".absent").textContent = score < typical ? "absent" : "";
};

function fillSlide(slide, reason) {
  const name = reason.attribute;
  const { low, high, label } = info.get(name);
  if (about.no_corrections) return;
  const corrected = shown.corrections.has(name);
  const unread = !corrected && reason.reading == null;
  const value = corrected ? shown.corrections.get(name) : (reason.reading ?? (low + high) / 2);
  let range = slide.querySelector("input");
  if (!range) {
    range = make("input", {
      type: "range",
      min: low,
      max: high,
      step: (high - low) / 100 || "any",
      data: { attribute: name, role: "range" },
      aria: { label: `Correct ${label}` },
    });
    range.addEventListener("input", () => {
      shown.corrections.set(name, Number(range.value));
      rank();
    });
    range.addEventListener("change", () => rank().then(announce));
    slide.append(range, make("span"));
  }
  if (document.activeElement !== range) range.value = value;
  const read = unread ? "not learned well enough to estimate" : `${plain(value)}, estimated by the model`;
  range.setAttribute("aria-valuetext", corrected ? `${plain(value)}, corrected` : read);
  slide.classList.toggle("unread", unread);
  const end = slide.lastElementChild;
  if (corrected && end.tagName !== "BUTTON") {
    const undo = make("button", {
      type: "button",
      className: "undo",
      textContent: "undo",
      data: { attribute: name, role: "undo" },
      aria: { label: `Undo the correction of ${label}` },
    });
    undo.addEventListener("click", () => {
      shown.corrections.delete(name);
      range.focus();
      range.blur();
      rank().then(announce);
    });
    end.replaceWith(undo);
  } else if (!corrected) {
    end.replaceWith(make("output", { textContent: unread ? "?" : plain(value), title: unread ? read : "" }));
  }
}

// What separates the class from its rival, and which values to refine.
async function separate() {
  const { target, rival } = shown.answer;
  if (shown.apart) return hideSeparation();
  try {
    const query = new URLSearchParams({ first: target.name, second: rival.name });
    const found = await ask(`/api/separate?${query}`);
    const values = (d) => `${labelOf(d.attribute)} (${plain(d.first_value)} and ${plain(d.second_value)})`;
    const today = found.today.length
      ? `${target.name} and ${rival.name} differ most in ${found.today.map(values).join(", ")}.`
      : `${target.name} and ${rival.name} have equal attributes.`;
    const refine = found.refine.length
      ? `To separate them better, check whether they differ in ${found.refine.map((d) => labelOf(d.attribute)).join(", ")}: the model recognizes these well, but their values are equal in the table.`
      : "The table has no other attribute that the model recognizes well.";
    $("separation").replaceChildren(make("p", { textContent: today }), make("p", { textContent: refine }));
    $("separation").hidden = false;
    $("separate").setAttribute("aria-expanded", "true");
    shown.apart = `${target.name}\n${rival.name}`;
  } catch (error) {
    complain(error.message);
  }
}

function hideSeparation() {
  shown.apart = null;
  $("separation").hidden = true;
  $("separate").setAttribute("aria-expanded", "false");
}

function drawImage() {
  const { bitmap, answer, pinned, hovered, heats } = shown;
  const canvas = $("canvas");
  const scale = Math.min(1, 1000 / Math.max(bitmap.width, bitmap.height)) * Math.max(1, 480 / Math.max(bitmap.width, bitmap.height));
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
  $("caption").textContent = text[0].toUpperCase() + text.slice(1);
  canvas.setAttribute("aria-label", `Image ${name}, with the ${text}`);
  const [x, y] = [canvas.width / answer.width, canvas.height / answer.height];
  drawHeat(canvas, heats.get(attribute), answer.crop.map((v, i) => v * (i % 2 ? y : x)));
}

$("file").addEventListener("change", () => {
  if ($("file").files[0]) look($("file").files[0]);
  $("file").value = "";
});
for (const id of ["among", "place", "month"])
  $(id).addEventListener("change", () => {
    shown.target = shown.rival = null;
    rank().then(announce);
  });
$("more").addEventListener("click", () => {
  shown.top = shown.top === FIRST ? 20 : EVERY;
  drawRanking();
});
$("target").addEventListener("change", () => choose($("target").value, shown.rival));
$("rival").addEventListener("change", () => choose(shown.answer.target.name, $("rival").value));
$("measure").addEventListener("change", drawWhy);
$("separate").addEventListener("click", separate);
$("search").addEventListener("input", drawWhy);
$("reset").addEventListener("click", () => {
  shown.corrections.clear();
  rank().then(announce);
});
$("all-attributes").addEventListener("click", () => {
  shown.every = !shown.every;
  drawWhy();
});

function takesFiles(zone, take) {
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

takesFiles($("drop"), (files) => look(files[0]));
takesFiles($("figure"), (files) => look(files[0]));
takesFiles($("batch-drop"), (files) => runBatch(files));
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((f) => f.type.startsWith("image/"));
  if (!files.length) return;
  event.preventDefault();
  if (!$("classes").hidden && !about.no_images) {
    if (opened !== null) addImages(opened, files);
    else if (edited === null) chooseImages([...chosen, ...files]);
    return;
  }
  if (!$("batch").hidden || !$("review").hidden) return runBatch(files);
  openTab($("tab-image"));
  look(files[0]);
});

// ---------------------------------------------------------------- the camera

let hasCamera = false;

async function findCamera() {
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? []; // none without HTTPS, but on this machine
  hasCamera = devices.some((device) => device.kind === "videoinput");
  $("camera-line").hidden = !hasCamera;
}

// Images from the camera: one, or as many as are taken until it is done; none if it is cancelled.
async function takeImages(several) {
  const [box, video] = [$("camera"), $("video")];
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "environment" } });
  } catch {
    complain("The browser denies access to the camera. Allow this page to use it.");
    return [];
  }
  const taken = [];
  complain("");
  video.srcObject = stream;
  $("camera-done").hidden = !several;
  $("camera-said").textContent = "";
  box.returnValue = "";
  box.showModal();
  $("camera-take").onclick = async () => {
    if (!video.videoWidth) return;
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    const time = new Date().toISOString().replaceAll(/[:.]/g, "-");
    taken.push(new File([blob], `camera-${time}.jpg`, { type: "image/jpeg" }));
    $("camera-said").textContent = `${count(taken.length, "image")} taken.`;
    if (!several) box.close("done");
  };
  return new Promise((done) => {
    box.onclose = () => {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
      done(box.returnValue === "done" ? taken : []);
    };
  });
}

$("camera-cancel").addEventListener("click", () => $("camera").close());
$("camera-done").addEventListener("click", () => $("camera").close("done"));
$("camera-look").addEventListener("click", async () => {
  const [file] = await takeImages(false);
  if (file) look(file);
});

// ---------------------------------------------------------------- many images

async function predict(file) {
  const problem = tooLarge(file);
  if (problem) return { image: file.name, error: problem };
  for (;;) {
    const form = new FormData();
    form.append("images", file, file.name);
    form.append("among", $("batch-among").value);
    for (const [name, value] of Object.entries(occasion())) form.append(name, value);
    try {
      return (await ask("/api/predict", { method: "POST", body: form })).predictions[0];
    } catch (error) {
      if (error.status !== 429 || batch.stop) return { image: file.name, error: error.message };
      await new Promise((done) => setTimeout(done, 1000 * Math.min(error.wait, 10)));
    }
  }
}

// First names of an answer's classes: they may be renamed before it is reviewed.
const originsOf = (found) => (found.classes ?? []).map((c) => originOf(c.name));

const runBatch = (files) => work(files, async (file) => {
  const found = await predict(file);
  const row = { found, file, node: batchRow(file, found), origins: originsOf(found) };
  batch.rows.push(row);
  place(row);
});

// The same images with the current classes.
const predictAgain = () => work([...batch.rows], async (row) => {
  row.found = await predict(row.file);
  row.origins = originsOf(row.found);
  const node = batchRow(row.file, row.found);
  row.node.replaceWith(node);
  row.node = node;
  node.hidden = !fitsFilter(row);
});

// One after another, until all are done or the user stops.
async function work(files, one) {
  if (batch.running) return complain("Wait until the current images are done, or stop them first.");
  complain("");
  batch = { rows: batch.rows, running: true, stop: false };
  batchButtons();
  $("batch-progress").hidden = $("batch-region").hidden = $("batch-filter").hidden = $("review-running").hidden = false;
  $("progress").max = files.length;
  say(`Processing ${count(files.length, "image")}.`);
  let done = 0;
  const note = () => {
    $("progress").value = done;
    $("progress-text").textContent = `${done} of ${files.length}`;
    $("review-running").textContent = `Predicting: ${done} of ${count(files.length, "image")}.`;
  };
  note();
  for (const file of files) {
    if (batch.stop) break;
    await one(file);
    done += 1;
    note();
  }
  batch.running = false;
  $("review-running").hidden = true;
  batchButtons();
  drawBatch();
  await drawReview();
  const failed = batch.rows.filter((r) => r.found.error).length;
  say(`${count(done, "image")} done${failed ? `, ${failed} could not be read` : ""}.`);
}

function batchRow(file, found) {
  const thumb = make("canvas", { width: 88, height: 88, aria: { hidden: "true" } });
  createImageBitmap(file, { resizeHeight: 88, resizeQuality: "medium" })
    .then((bitmap) => {
      const side = Math.min(bitmap.width, bitmap.height);
      const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
      thumb.getContext("2d").drawImage(bitmap, x, y, side, side, 0, 0, 88, 88);
      bitmap.close();
    })
    .catch(() => {});
  const open = make("button", { type: "button", className: "open", title: "Explain this image" }, thumb, make("span", { textContent: found.image }));
  open.addEventListener("click", () => {
    openTab($("tab-image"));
    look(file);
  });
  const row = make("tr", {}, make("td", {}, open));
  if (found.error) {
    const hint = found.hint ? ` To fix it: ${found.hint}.` : "";
    row.append(make("td", { className: "bad", colSpan: 4, textContent: `${found.error}.${hint}`.replace("..", ".") }));
    return row;
  }
  const [best, next] = found.classes;
  row.append(
    make("td", {}, found.unknown ? `${coarser(found) || "unknown"}; nearest: ${best.name}` : best.name, chip(best.seen)),
    make("td", { textContent: percent(best.confidence) }),
    make("td", { textContent: next ? `${next.name}, ${percent(next.confidence)}` : "" }),
    make("td", { textContent: found.attributes.slice(0, 2).map((a) => labelOf(a.attribute)).join("; ") }),
  );
  return row;
}

let sorting = null; // {key, down}
const SORTED = {
  image: (r) => r.found.image.toLowerCase(),
  class: (r) => (r.found.error ? "\uffff" : `${r.found.unknown ? "" : "\u0001"}${r.found.classes[0].name.toLowerCase()}`),
  confidence: (r) => (r.found.error ? -1 : r.found.classes[0].confidence),
};

function fitsFilter({ found, node }) {
  const which = $("batch-which").value;
  if (which === "unknown" && (found.error || !found.unknown)) return false;
  if (which === "error" && !found.error) return false;
  const words = $("batch-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = node.textContent.toLowerCase();
  return words.every((w) => text.includes(w));
}

// Add a new row; the others stay in place.
function place(row) {
  row.node.hidden = !fitsFilter(row);
  const body = $("batch-table").tBodies[0];
  if (!sorting) return body.append(row.node);
  const before = sortedRows().find((other) => other !== row && order(row, other) < 0);
  body.insertBefore(row.node, before?.node ?? null);
}

function order(a, b) {
  const [x, y] = [SORTED[sorting.key](a), SORTED[sorting.key](b)];
  return (x < y ? -1 : x > y ? 1 : 0) * (sorting.down ? -1 : 1);
}

const sortedRows = () => (sorting ? [...batch.rows].sort(order) : batch.rows);

function drawBatch() {
  for (const row of batch.rows) row.node.hidden = !fitsFilter(row);
  $("batch-table").tBodies[0].replaceChildren(...sortedRows().map((row) => row.node));
  for (const button of document.querySelectorAll("#batch-table [data-sort]")) {
    const mine = sorting?.key === button.dataset.sort;
    button.parentElement.ariaSort = mine ? (sorting.down ? "descending" : "ascending") : null;
  }
}

for (const button of document.querySelectorAll("#batch-table [data-sort]"))
  button.addEventListener("click", () => {
    const key = button.dataset.sort;
    sorting = sorting?.key !== key ? { key, down: false } : sorting.down ? null : { key, down: true };
    drawBatch();
  });
$("batch-search").addEventListener("input", drawBatch);
$("batch-which").addEventListener("change", drawBatch);

function batchButtons() {
  const none = !batch.rows.length;
  $("batch-stop").disabled = !batch.running;
  $("batch-review").disabled = none;
  $("batch-again").disabled = none || batch.running;
  $("batch-csv").disabled = $("batch-xlsx").disabled = $("batch-json").disabled = none;
  $("batch-clear").disabled = none || batch.running;
}

// The same columns as unseen predict --output.
function batchTable() {
  const found = batch.rows.map((r) => r.found);
  const count = Math.max(1, ...found.map((r) => r.classes?.length ?? 0));
  const places = Array.from({ length: count - 1 }, (_, i) => i + 2);
  const others = places.flatMap((place) => [`class_${place}`, `confidence_${place}`]);
  const taxa = about.ranks.length ? ["answer", "answer_rank", ...about.ranks.flatMap((rank) => [rank, `${rank}_confidence`])] : [];
  const weighed = about.prior ? ["class_without_prior", "confidence_without_prior", "prior"] : [];
  const header = ["image", "class", "best_class", "confidence", "seen", ...others, ...taxa, ...weighed, "attributes", "error"];
  const rows = found.map((r) => {
    const [best, ...rest] = r.classes ?? [];
    const cells = {
      image: r.image,
      class: best && r.unknown ? "unknown" : best?.name,
      best_class: best?.name,
      confidence: best?.confidence,
      seen: best && Number(best.seen),
      answer: r.answer,
      answer_rank: r.answer_rank,
      class_without_prior: r.without_prior?.name,
      confidence_without_prior: r.without_prior?.confidence,
      prior: r.prior,
      attributes: (r.attributes ?? []).map((a) => labelOf(a.attribute)).join("; "),
      error: r.error,
    };
    for (const [i, other] of rest.entries()) {
      cells[`class_${i + 2}`] = other.name;
      cells[`confidence_${i + 2}`] = other.confidence;
    }
    for (const taxon of r.ranks ?? []) {
      cells[taxon.rank] = taxon.name;
      cells[`${taxon.rank}_confidence`] = taxon.confidence;
    }
    return header.map((name) => cells[name]);
  });
  return [header, ...rows];
}

$("files").addEventListener("change", () => {
  const files = [...$("files").files];
  $("files").value = "";
  if (files.length) runBatch(files);
});
$("batch-stop").addEventListener("click", () => {
  batch.stop = true;
});
$("batch-csv").addEventListener("click", () => downloadCsv("predictions.csv", batchTable()));
async function downloadXlsx(name, [columns, ...rows]) {
  const body = JSON.stringify({ columns, rows: rows.map((row) => row.map((value) => value ?? null)) });
  const answer = await fetch("/api/workbook", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) throw new Error((await answer.json()).error);
  download(name, answer.headers.get("Content-Type"), await answer.blob());
}

$("batch-xlsx").addEventListener("click", () => downloadXlsx("predictions.xlsx", batchTable()).catch((error) => complain(error.message)));
$("batch-again").addEventListener("click", predictAgain);
$("batch-review").addEventListener("click", () => openTab($("tab-review"), true));
$("batch-json").addEventListener("click", () =>
  download("predictions.json", "application/json", JSON.stringify({ predictions: batch.rows.map((r) => r.found) }, null, 2)),
);
$("batch-clear").addEventListener("click", () => {
  batch.rows = [];
  $("batch-table").tBodies[0].replaceChildren();
  $("batch-progress").hidden = $("batch-region").hidden = $("batch-filter").hidden = true;
  batchButtons();
});

// ---------------------------------------------------------------- review

let refreshReview = null; // promise of a function that shows the current rows

// A class is known by its first name, whatever it is called now: the name alone may have passed to another class.
const originOf = (name) => classes.find((c) => c.name === name)?.origin ?? name;
const nameNow = (origin) => classes.find((c) => (c.origin ?? c.name) === origin)?.name;

async function drawReview() {
  const none = !batch.rows.length;
  $("review-empty").hidden = !none;
  $("review-sheet").hidden = none;
  if (none || $("review").hidden) return;
  refreshReview ??= openReview($("review-sheet"), {
    rows: () => batch.rows,
    classes: () => classes.map((c) => c.name),
    originOf,
    nameNow,
    name: () => about.model,
    labelOf,
    coarser,
    downloadXlsx,
    support: about.no_images ? null : { send: sendImages, again: () => loadClasses().then(predictAgain) },
  });
  try {
    await (await refreshReview)();
  } catch (error) {
    complain(error.message);
  }
}

takesFiles($("review-drop"), (files) => runBatch(files));
$("review-files").addEventListener("change", () => {
  const files = [...$("review-files").files];
  $("review-files").value = "";
  if (files.length) runBatch(files);
});

// ---------------------------------------------------------------- classes

let sent = new Map(); // attribute -> value set in the form
let base = new Map(); // values of the class that the form starts from

async function loadClasses() {
  const found = await ask("/api/classes");
  classes = found.classes;
  listed = JSON.stringify(found);
  const like = $("add-like").value;
  const empty = $("add-like").options[0];
  options($("add-like"), classes.map((c) => c.name), null);
  $("add-like").prepend(empty);
  $("add-like").value = classes.some((c) => c.name === like) ? like : "";
  drawClasses();
  about = await ask("/api/about");
  drawHeader();
  $("outdated").hidden = !found.outdated;
  $("outdated").textContent = found.outdated ? `The classes were changed elsewhere, too: ${found.outdated}.` : "";
}

async function followClasses() { // a terminal may have changed them
  if (about && JSON.stringify(await ask("/api/classes")) !== listed) await loadClasses();
}

addEventListener("focus", () => followClasses().catch(() => {}));

function drawClasses() {
  const words = $("class-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = classes.filter((c) => words.every((w) => c.name.toLowerCase().includes(w)));
  found.sort((a, b) => Number(b.change === "added") - Number(a.change === "added")); // added classes first
  $("classes-title").textContent = count(classes.length, "class");
  $("class-list").replaceChildren(
    ...found.map((c) => {
      const action = (text, act, aria) => {
        const button = make("button", { type: "button", className: "quiet", textContent: text, aria: { label: `${text} ${text === "Images" ? "of " : ""}${c.name}`, ...aria } });
        button.addEventListener("click", () => act(c.name));
        return button;
      };
      const open = opened === c.name;
      const changed = c.change ? make("span", { className: "chip own", textContent: c.change }) : null;
      const images = c.images ? make("span", { className: "chip own", textContent: count(c.images, "image") }) : null;
      const expected = c.expectation ? make("span", { className: "expectation", textContent: c.expectation }) : null;
      const name = make("span", { className: "name" }, make("span", { textContent: c.name }), chip(c.seen), changed, images, expected);
      const buttons = make("div", { className: "buttons" }, action("Edit", editClass), action("Rename", renameClass), action("Remove", removeClass));
      if (!about.no_images) buttons.prepend(action("Images", toggleImages, { expanded: String(open) }));
      const row = make("li", { data: { name: c.name } }, name, buttons, open ? imagesPanel(c) : null);
      if (!about.no_images) takesFiles(row, (files) => addImages(c.name, files));
      return row;
    }),
  );
}

// ---------------------------------------------------------------- images of classes

let opened = null; // the class whose images are shown
let told = null; // last result, as nodes

const imagesPath = (name) => `/api/class-images/${encodeURIComponent(name)}`;

function toggleImages(name) {
  opened = opened === name ? null : name;
  told = null;
  drawClasses();
  [...$("class-list").querySelectorAll("[aria-expanded]")].find((b) => b.closest("li").dataset.name === name)?.focus();
}

// What a class score is based on, in words.
function restsOn({ images, image_weight: weight }) {
  if (!images) return "its attributes alone";
  return weight === 1 ? `${count(images, "image")}, no attributes` : `${count(images, "image")} (${percent(weight)}) and its attributes (${percent(1 - weight)})`;
}

function imagesPanel(c) {
  const input = make("input", { type: "file", accept: "image/*", multiple: true, aria: { label: `Add images of ${c.name}` } });
  input.addEventListener("change", () => {
    const files = [...input.files];
    if (files.length) addImages(c.name, files);
  });
  const drop = make("label", { className: "drop small" }, input, make("span", { className: "drop-text", textContent: "Choose images" }), make("span", { className: "drop-help", textContent: `of ${c.name}, drop them here, or paste them` }));
  const list = make("ul", { className: "thumbs", aria: { label: `Images of ${c.name}` } });
  if (c.images) fillImages(list, c.name);
  const score = make("p", { className: "hint", textContent: `Scores of ${c.name} use ${restsOn(c)}.` });
  const camera = make("button", { type: "button", className: "quiet", textContent: "Use the camera", hidden: !hasCamera });
  camera.addEventListener("click", async () => {
    const files = await takeImages(true);
    if (files.length) addImages(c.name, files);
  });
  return make("div", { className: "own-images" }, ...(told ?? [score]), list, drop, camera);
}

async function fillImages(list, name) {
  try {
    const { images } = await ask(imagesPath(name));
    list.replaceChildren(
      ...images.map((i) => {
        const remove = make("button", { type: "button", className: "quiet", textContent: "×", title: "Remove", aria: { label: `Remove the image ${i.image || "without a name"}, ${i.sha256.slice(0, 6)}` } });
        remove.addEventListener("click", () => removeImages(name, [i.sha256]));
        const none = () => make("span", { className: "none", textContent: i.image || "image" });
        const small = i.thumbnail ? make("img", { src: `/api/thumbnails/${i.sha256}`, alt: i.image, loading: "lazy" }) : none();
        small.addEventListener("error", () => small.replaceWith(none()));
        return make("li", { title: `${i.image}, added ${new Date(i.added).toLocaleString()}` }, small, remove);
      }),
    );
  } catch (error) {
    complain(error.message);
  }
}

// Split files into requests within the limits of the server, which adds all images of a request together.
function parcels(files) {
  const { images, upload_bytes: most } = about.limits;
  const found = [];
  let size = Infinity;
  for (const file of files) {
    if (size + file.size + 4096 > most || found.at(-1).length === images) {
      found.push([]);
      size = 0;
    }
    found.at(-1).push(file);
    size += file.size + 4096;
  }
  return found;
}

// Send images of a class; returns the combined answer of all requests. Throws if no image was accepted.
async function sendImages(name, files, create = false) {
  const total = { classes: [], added: [], known: [], failed: [], warnings: [] };
  const sendable = [];
  for (const file of files) {
    const problem = tooLarge(file);
    if (problem) total.failed.push({ image: file.name, error: problem });
    else sendable.push(file);
  }
  for (const parcel of parcels(sendable)) {
    const form = new FormData();
    for (const file of parcel) form.append("images", file, file.name || "pasted image");
    try {
      const found = await ask(imagesPath(name), { method: create && !total.classes.length ? "PUT" : "PATCH", body: form });
      total.classes = found.classes;
      for (const key of ["added", "known", "failed", "warnings"]) total[key].push(...found[key]);
    } catch (error) {
      total.failed.push(...parcel.map((file, i) => ({ image: file.name, error: i ? null : error.message })));
    }
  }
  if (!total.classes.length) throw new Error(total.failed.find((f) => f.error).error);
  return total;
}

// Notes on images that were left out.
function leftOut({ known, failed, warnings }) {
  const lines = failed.filter((f) => f.error).map((f) => `${f.error}${f.hint ? `. To fix it: ${f.hint}.` : ""}`);
  if (known.length) lines.unshift(`Already in the class: ${known.slice(0, 5).join(", ")}${known.length > 5 ? ", …" : ""}.`);
  const more = lines.length > 6 ? [`${lines.length - 5} more were left out.`] : [];
  return [...lines.slice(0, more.length ? 5 : 6), ...more, ...warnings];
}

async function changeImages(name, work, message) {
  opened = name;
  told = null;
  await change(work, (found) => {
    const [c] = found.classes;
    told = [make("p", { className: "done" }, `${message(found)} Scores of ${name} now use ${restsOn(c)}.`), ...leftOut({ known: [], failed: [], ...found }).map((text) => make("p", { className: "note", textContent: text }))];
    if (found.added?.length) {
      const undo = make("button", { type: "button", className: "link", textContent: "Undo" });
      undo.addEventListener("click", () => removeImages(name, found.added));
      told[0].append(" ", undo);
    }
    say(told[0].firstChild.data);
    return null; // shown at the class
  });
}

const addImages = (name, files) => changeImages(name, () => sendImages(name, files), (found) => `${count(found.added.length, "image")} added.`);

function removeImages(name, digests) {
  const query = new URLSearchParams(digests.map((digest) => ["image", digest]));
  return changeImages(name, () => ask(`${imagesPath(name)}?${query}`, { method: "DELETE" }), () => `${count(digests.length, "image")} removed.`);
}

let chosen = []; // images of the class to add

function chooseImages(files) {
  chosen = files;
  $("add-chosen").hidden = !files.length;
  $("add-chosen").firstElementChild.textContent = files.length ? `${count(files.length, "image")}: ${files.slice(0, 3).map((f) => f.name).join(", ")}${files.length > 3 ? ", …" : ""}` : "";
}

$("add-files").addEventListener("change", () => {
  const files = [...$("add-files").files];
  $("add-files").value = "";
  if (files.length) chooseImages([...chosen, ...files]);
});
$("add-chosen").lastElementChild.addEventListener("click", () => chooseImages([]));
takesFiles($("add-drop"), (files) => chooseImages([...chosen, ...files]));

let settle = null; // resolves the promise of the open dialog

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

// Change the classes, then show the result here and in the answer for the image.
async function change(work, message) {
  complain("");
  try {
    const found = await work();
    const text = message(found);
    await loadClasses();
    const notes = found.warnings.map((warning) => make("p", { className: "note", textContent: warning }));
    const near = Object.entries(found.nearest ?? {}).filter(([, names]) => names.length);
    const lines = near.map(([name, names]) => make("p", { className: "hint", textContent: `${near.length > 1 ? `${name}: nearest` : "Nearest"} by attributes: ${names.join(", ")}.` }));
    if (text === null) $("added").replaceChildren();
    else $("added").replaceChildren(make("p", { className: "done", textContent: text }), ...lines, ...notes);
    if (shown) {
      const names = new Set(classes.map((c) => c.name));
      if (!names.has(shown.target)) shown.target = null;
      if (!names.has(shown.rival)) shown.rival = null;
      await rank();
    }
    return true;
  } catch (error) {
    complain(error.message);
    $("alert").scrollIntoView({ block: "nearest" });
    return false;
  }
}

async function renameClass(name) {
  const to = await dialog({ title: `Rename ${name}`, value: name, ok: "Rename" });
  if (!to || to === true || to === name) return;
  await change(
    () => send(classPath(name), "PATCH", { name: to }),
    () => `Renamed ${name} to ${to}.`,
  );
}

async function removeClass(name) {
  const text = about.saves ? "The class is also removed from the saved run." : "Classes of the saved run return when the server restarts; added classes don’t.";
  if (!(await dialog({ title: `Remove ${name}?`, text, ok: "Remove", danger: true }))) return;
  await change(() => ask(classPath(name), { method: "DELETE" }), () => `Removed ${name}.`);
}

// A slider and a number for each attribute; without a value, it is at the mean.
function drawSliders() {
  const words = $("add-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let group = null;
  const nodes = [];
  for (const a of about.attributes) {
    if (!words.every((w) => a.label.toLowerCase().includes(w))) continue;
    const alone = about.attributes.filter((b) => b.group === a.group).length < 2;
    if (a.group !== group && !(alone && a.label.toLowerCase() === a.group.toLowerCase()))
      nodes.push(make("h3", { textContent: a.group }));
    group = a.group;
    nodes.push(slider(a));
  }
  $("add-attributes").replaceChildren(...(nodes.length ? nodes : [make("p", { className: "empty", textContent: "No attribute matches." })]));
}

function slider(a) {
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

let edited = null; // the class in the form; null while adding one

function formFor(name) {
  edited = name;
  $("add").reset();
  sent.clear();
  base.clear();
  $("add-title").textContent = name === null ? "Add a class" : `Edit ${name}`;
  $("add-submit").textContent = name === null ? "Add class" : "Save values";
  $("add-cancel").hidden = name === null;
  $("add-hint").hidden = $("add-like").parentElement.hidden = name !== null;
  $("add-images").hidden = name !== null || Boolean(about.no_images);
  chooseImages([]);
  $("add-name").value = name ?? "";
}

async function editClass(name) {
  complain("");
  try {
    const { values } = await ask(classPath(name));
    formFor(name);
    base = new Map(Object.entries(values));
    drawSliders();
    $("add-title").scrollIntoView({ block: "nearest" });
    $("add-name").focus();
  } catch (error) {
    complain(error.message);
  }
}

$("add-cancel").addEventListener("click", () => {
  formFor(null);
  drawSliders();
});
$("save").addEventListener("click", async () => {
  complain("");
  try {
    const { folder } = await send("/api/classes/save", "POST", {});
    $("added").replaceChildren(make("p", { className: "done", textContent: `The classes are saved in ${folder}.` }));
  } catch (error) {
    complain(error.message);
  }
});
$("add-like").addEventListener("change", async () => {
  const like = $("add-like").value;
  try {
    base = new Map(Object.entries(like ? (await ask(classPath(like))).values : {}));
    sent.clear();
    drawSliders();
  } catch (error) {
    complain(error.message);
  }
});
$("add-search").addEventListener("input", drawSliders);
$("class-search").addEventListener("input", drawClasses);
$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("add-name").value.trim();
  const values = Object.fromEntries(sent);
  const before = edited;
  const kept = about.saves ? "It is saved with the run." : "It is lost when the server stops.";
  const like = $("add-like").value || null;
  const images = before === null ? chosen : [];
  const alone = images.length > 0 && !sent.size && !like; // only images, no attributes
  const work = async () => {
    if (before !== null) return send(classPath(before), "PATCH", { name, values });
    const found = alone ? { warnings: [] } : await send("/api/classes", "POST", { name, like, values });
    if (!images.length) return found;
    const given = await sendImages(name, images, alone).catch((error) => {
      if (alone) throw error;
      return { classes: found.classes, added: [], known: [], failed: [{ error: error.message }], warnings: [] };
    });
    return { ...found, classes: given.classes, warnings: [...found.warnings, ...leftOut(given)] };
  };
  const uses = (found) => (images.length ? ` Its scores use ${restsOn(found.classes[0])}.` : "");
  if (await change(work, (found) => `${name} is ${before === null ? "added" : "changed"}.${uses(found)} ${kept}`)) {
    formFor(null);
    drawSliders();
    $("add-name").focus();
  }
});
$("csv").addEventListener("change", async () => {
  const file = $("csv").files[0];
  $("csv").value = "";
  if (!file) return;
  const kinds = { tsv: "text/tab-separated-values", xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" };
  const headers = { "Content-Type": kinds[file.name.split(".").pop().toLowerCase()] ?? "text/csv" };
  await change(
    async () => ask("/api/classes", { method: "POST", headers, body: await file.arrayBuffer() }),
    (found) => `${found.classes.length} added: ${found.classes.map((c) => c.name).join(", ")}.`,
  );
});
$("template").addEventListener("click", () => {
  const rows = [["class", ...Object.keys(about.template)], ["New class", ...Object.values(about.template)]];
  downloadCsv("classes-to-add.csv", rows);
});

// ---------------------------------------------------------------- about the model

function drawHeader() {
  $("model").textContent = about.model;
  $("summary").textContent = `${count(about.classes, "class")}, ${count(about.attributes.length, "attribute")}; ${count(about.unseen, "class")} without training images.`;
  document.title = `${about.model} – unseen`;
}

function drawAbout() {
  $("no-corrections").hidden = !about.no_corrections;
  $("no-corrections").textContent = about.no_corrections
    ? `Attributes cannot be corrected here: ${about.no_corrections}.`
    : "";
  $("slide-head").hidden = $("reset").hidden = Boolean(about.no_corrections);
  $("save-line").hidden = !about.can_save;
  $("add-images").hidden = $("no-images").hidden = true;
  if (about.no_images) {
    $("no-images").hidden = false;
    $("no-images").textContent = `Classes cannot have images here: ${about.no_images}.`;
  } else $("add-images").hidden = false;
  $("saves").textContent = about.saves ? "Changes are saved with the run." : "Changes made here last until the server stops. Changes by `unseen classes` in a terminal appear here.";
  if (about.metrics.length) {
    $("metrics").replaceChildren(
      ...about.metrics.map((m) => {
        const fill = make("span");
        fill.style.width = `${100 * m.value}%`;
        const range = m.low == null ? "" : ` 95% interval ${(100 * m.low).toFixed(1)}% to ${(100 * m.high).toFixed(1)}%.`;
        return make(
          "div",
          { className: "metric" },
          make("p", {}, make("span", { textContent: m.estimated ? `${m.name} (estimated)` : m.name }), make("span", { textContent: `${(100 * m.value).toFixed(1)}%` })),
          make("div", { className: "meter", aria: { hidden: "true" } }, fill),
          make("p", { className: "hint", textContent: `${m.meaning[0].toUpperCase()}${m.meaning.slice(1)}.${range}` }),
        );
      }),
    );
  } else {
    $("metrics").replaceChildren(make("p", { className: "empty", textContent: "This model has no test results." }));
  }
  const { limits } = about;
  const sure = about.calibrated ? "fitted on validation classes" : "not calibrated: use it only to rank answers";
  const facts = {
    Method: about.method,
    Backbone: about.backbone,
    Data: about.data,
    Protocol: about.protocol,
    Confidence: sure,
    Unknown: about.threshold == null ? "never: no threshold was chosen" : `below ${percent(about.threshold)} confidence`,
    Limits: `${Math.round(limits.upload_bytes / 2 ** 20)} MB per request, ${limits.image_pixels / 1e6} megapixels per image`,
    Images: "kept in memory during analysis, never stored; for support images, features, file names and checksums are saved",
    Version: `unseen ${about.version}`,
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]),
  );
}

async function drawExamples() {
  const { examples } = await ask("/api/examples").catch(() => ({ examples: [] }));
  $("examples").hidden = !examples.length;
  $("example-list").replaceChildren(
    ...examples.map((name, i) => {
      const image = make("img", { src: `/api/examples/${i}?small=1`, alt: name, title: name });
      const button = make("button", { type: "button", className: "example" }, image);
      button.addEventListener("click", async () => {
        const answer = await fetch(`/api/examples/${i}`);
        if (answer.ok) look(new File([await answer.blob()], `${name}.jpg`, { type: "image/jpeg" }));
      });
      return button;
    }),
  );
}

async function start() {
  try {
    about = await ask("/api/about");
    info = new Map(about.attributes.map((a) => [a.name, a]));
    drawAbout();
    offerOccasions();
    drawSliders();
    await findCamera();
    await loadClasses();
    await drawExamples();
  } catch (error) {
    $("model").textContent = "unseen";
    complain(error.message);
  }
}

const wanted = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
if (wanted) openTab(wanted);
start();
