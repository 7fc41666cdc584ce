// The contact sheet, in a document or in a shadow root.

import { count, drawHeat, make, percent, signed } from "/common.js";

const UNKNOWN = "unknown";
const LARGE = 6; // candidates of an opened image

// Set up the sheet with the elements in root. A store provides and keeps its data:
//   load()                   -> {classes, items: [{row, image, known, classes, attributes, error, coarser, alone, place, used}], verdicts: [[row, name]]}
//   keep(changes, verdicts)  stores changes, or throws. strict: changes that are not stored are not shown
//   image(item), large(item) -> address, null, or a promise of it
//   reasons(item)            -> {reasons: [{label, evidence, heat}], crop}, as shares of the image; omitted if there are no explanations
//   tools                    -> [{text, href} or {text, run, id}]
// Returns a function that reads the store again.
export function openSheet(root, store) {
  const $ = (id) => root.getElementById(id);
  let data; // {classes, items, verdicts}
  let items; // by row
  const verdicts = new Map(); // row -> class name, or null for "none of the classes"
  const tiles = new Map(); // row -> element, for the displayed images
  let shown = []; // rows in display order
  let selected = new Set();
  let current = null; // row
  let anchor = null; // start of a range
  const undone = []; // [[row, verdict or undefined], ...] before each change

  const share = (value) => `${(100 * value).toFixed(value > 0.995 || value < 0.005 ? 1 : 0)}%`;
  const fileName = (path) => path.split(/[\\/]/).slice(-2).join("/");
  const answerOf = (item) => (item.error ? undefined : item.known ? item.classes[0][0] : null);
  const words = (name) => (name === null ? UNKNOWN : name === undefined ? "" : name);
  const confidenceOf = (item) => (item.error ? -1 : item.classes[0][2]);

  function complain(text) {
    $("alert").textContent = text;
    $("alert").hidden = !text;
  }

  // ---------------------------------------------------------------- display

  function filtered() {
    const which = $("which").value;
    const name = $("class").value.trim().toLowerCase();
    const below = $("below").value === "" ? Infinity : Number($("below").value) / 100;
    return items.filter((item) => {
      const done = verdicts.has(item.row);
      const right = done && verdicts.get(item.row) === answerOf(item);
      const fits = { all: true, open: !done, done, wrong: done && !right, unknown: !item.error && !item.known, error: Boolean(item.error) };
      if (!fits[which]) return false;
      if (name && !labelOf(item).toLowerCase().includes(name)) return false;
      return confidenceOf(item) < below;
    });
  }

  const labelOf = (item) => words(verdicts.has(item.row) ? verdicts.get(item.row) : answerOf(item));

  function groups(found) {
    const doubt = (a, b) => confidenceOf(a) - confidenceOf(b) || a.row - b.row;
    const order = $("order").value;
    if (order === "doubt") return [["", found.sort(doubt)]];
    if (order === "sample") return [["", found.sort((a, b) => a.place - b.place)]];
    if (order === "file") return [["", found]];
    const byAnswer = new Map();
    for (const item of found.sort(doubt)) {
      const key = item.error ? "Not readable" : words(answerOf(item));
      if (!byAnswer.has(key)) byAnswer.set(key, []);
      byAnswer.get(key).push(item);
    }
    const rank = (key) => (key === UNKNOWN ? 0 : key === "Not readable" ? 2 : 1);
    return [...byAnswer].sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b));
  }

  const lazy = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        lazy.unobserve(target);
        picture(target, items[target.dataset.row]);
      }
    },
    { rootMargin: "400px" },
  );

  // Fill in the image of a tile; without a preview if it cannot be shown.
  async function picture(target, item) {
    const source = await store.image(item);
    if (source) target.src = source;
    else target.replaceWith(make("div", { className: "none", textContent: "no preview" }));
  }

  function draw() {
    lazy.disconnect();
    tiles.clear();
    const found = groups(filtered());
    shown = found.flatMap(([, members]) => members.map((item) => item.row));
    const sections = found.map(([name, members]) => {
      const grid = make("div", { className: "grid", aria: { role: "presentation" } }, ...members.map(tile));
      const head = name ? make("div", { className: "group-head" }, make("h2", { textContent: name }), make("span", { className: "soft", textContent: count(members.length, "image") })) : null;
      const group = make("section", { className: "group", aria: { role: "group", label: name || "Images" } }, head, grid);
      group.style.containIntrinsicSize = `auto ${60 + 190 * Math.ceil(members.length / 8)}px`;
      return group;
    });
    $("sheet").replaceChildren(...(shown.length ? sections : [make("p", { className: "empty", textContent: "No image matches." })]));
    selected = new Set([...selected].filter((row) => tiles.has(row)));
    if (!tiles.has(current)) current = shown[0] ?? null;
    if (!selected.size && current !== null) selected = new Set([current]);
    mark();
    tell();
  }

  function tile(item) {
    let image;
    if (item.error) image = make("div", { className: "none", textContent: item.error });
    else {
      image = make("img", { alt: "", decoding: "async", data: { row: item.row } });
      lazy.observe(image);
    }
    const node = make(
      "div",
      { className: "tile", id: `tile-${item.row}`, tabIndex: -1, data: { row: item.row }, aria: { role: "option", selected: "false" } },
      image,
      make("div", { className: "name" }),
      make("div", { className: "line" }, make("span"), make("span", { textContent: item.error ? "" : percent(confidenceOf(item)) })),
    );
    tiles.set(item.row, node);
    label(item);
    return node;
  }

  // Texts and colors of a tile.
  function label(item) {
    const node = tiles.get(item.row);
    if (!node) return;
    const done = verdicts.has(item.row);
    const right = done && verdicts.get(item.row) === answerOf(item);
    node.classList.toggle("right", right);
    node.classList.toggle("changed", done && !right);
    const [name, line] = [node.querySelector(".name"), node.querySelector(".line span")];
    name.textContent = labelOf(item) || "not readable";
    const was = done && !right ? `was ${words(answerOf(item)) || "not readable"}` : !item.error && !item.known ? item.coarser || `nearest: ${item.classes[0][0]}` : fileName(item.image);
    line.textContent = was;
    node.title = `${item.image}${item.alone ? `\nwithout the prior: ${item.alone}` : ""}${item.attributes.length ? `\nbecause of ${item.attributes.slice(0, 3).join(", ")}` : ""}`;
    const state = right ? "accepted" : done ? "corrected" : "not reviewed";
    node.setAttribute("aria-label", `${fileName(item.image)}: ${name.textContent}, ${item.error ?? percent(confidenceOf(item))}, ${state}`);
  }

  function mark() {
    for (const [row, node] of tiles) {
      const chosen = selected.has(row);
      if ((node.getAttribute("aria-selected") === "true") !== chosen) node.setAttribute("aria-selected", String(chosen));
      if (node.tabIndex === 0 && row !== current) node.tabIndex = -1;
    }
    const node = tiles.get(current);
    if (node) node.tabIndex = 0;
    $("selected").textContent = selected.size > 1 ? `${selected.size} selected` : "";
  }

  function focus(row, { extend = false, keep = false } = {}) {
    current = row;
    if (extend && anchor !== null && tiles.has(anchor)) {
      const [from, to] = [shown.indexOf(anchor), shown.indexOf(row)];
      selected = new Set(shown.slice(Math.min(from, to), Math.max(from, to) + 1));
    } else if (!keep) {
      selected = new Set([row]);
      anchor = row;
    }
    mark();
    tiles.get(row)?.focus();
  }

  // Wilson's 95% interval, as in the table that the command exports.
  function wilson(right, n) {
    const z = 1.959963984540054;
    const p = right / n;
    const middle = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
    const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
    return [Math.max(0, middle - half), Math.min(1, middle + half)];
  }

  function tell() {
    const right = (rows) => rows.filter((row) => verdicts.get(row) === answerOf(items[row])).length;
    const done = [...verdicts.keys()].filter((row) => !items[row].used);
    const order = items.filter((item) => !item.used).sort((a, b) => a.place - b.place).map((item) => item.row);
    const parts = [count(items.length, "image"), `${done.length.toLocaleString("en")} reviewed`];
    if (done.length) parts.push(`${right(done).toLocaleString("en")} of them right`);
    if (order.length !== items.length) parts.push(`${(items.length - order.length).toLocaleString("en")} used by the model and not counted`);
    if (shown.length !== items.length) parts.push(`${count(shown.length, "image")} shown`);
    $("summary").textContent = parts.join(" · ");
    const first = order.findIndex((row) => !verdicts.has(row));
    const sample = first < 0 ? order : order.slice(0, first);
    if (sample.length) {
      const [low, high] = wilson(right(sample), sample.length);
      const all = sample.length === order.length ? "All images reviewed" : `Measured on a random sample of ${sample.length.toLocaleString("en")}`;
      $("measured").textContent = `${all}: ${share(right(sample) / sample.length)} of answers are right (95% interval ${share(low)} to ${share(high)}).`;
    } else {
      $("measured").textContent = done.length ? "To measure accuracy, review images in the order “random sample”: doubtful images alone say too little." : "";
    }
  }

  // ---------------------------------------------------------------- verdicts

  async function decide(changes, { remember = true } = {}) {
    if (!changes.length) return;
    const before = changes.map(([row]) => [row, verdicts.get(row)]);
    apply(changes);
    complain("");
    try {
      await store.keep(changes, verdicts);
    } catch (error) {
      complain(error.message);
      if (store.strict) {
        apply(before); // do not show what is not stored
        return;
      }
    }
    if (remember) undone.push(before);
    $("undo").disabled = !undone.length;
  }

  function apply(changes) {
    for (const [row, verdict] of changes) {
      if (verdict === undefined) verdicts.delete(row);
      else verdicts.set(row, verdict);
      label(items[row]);
    }
    tell();
  }

  const chosenRows = () => shown.filter((row) => selected.has(row));

  function give(verdict) {
    const rows = chosenRows().filter((row) => verdict !== answerOf || !items[row].error);
    const changes = rows.map((row) => [row, typeof verdict === "function" ? verdict(items[row]) : verdict]);
    decide(changes.filter(([row, value]) => !(verdict === answerOf && value === undefined) && (value !== undefined || verdicts.has(row))));
    if (rows.length && verdict !== undefined) {
      const next = shown[shown.indexOf(rows.at(-1)) + 1];
      if (next !== undefined) focus(next);
    }
  }

  function undo() {
    const before = undone.pop();
    if (!before) return;
    decide(before, { remember: false });
    if (tiles.has(before[0][0])) focus(before[0][0]);
  }

  function correct() {
    const name = $("correct").value.trim();
    if (!name) return;
    const found = data.classes.find((c) => c === name) ?? data.classes.find((c) => c.toLowerCase() === name.toLowerCase());
    if (found === undefined && name.toLowerCase() !== UNKNOWN) return complain(`There is no class “${name}”.`);
    $("correct").value = "";
    give(found ?? null);
  }

  // ---------------------------------------------------------------- one image, large

  let heats = new Map();

  async function view(row) {
    const item = items[row];
    $("view-title").textContent = item.image;
    $("canvas").hidden = true;
    $("large").hidden = Boolean(item.error);
    $("large").removeAttribute("src");
    if (!item.error) Promise.resolve(store.large(item)).then((source) => ($("large").src = source ?? ""));
    const unsure = item.known ? "" : `${item.coarser || "Unknown"}: no class reaches the threshold. These are the closest.`;
    $("view-answer").textContent = item.error ?? [unsure, item.alone && `Without the prior: ${item.alone}.`].filter(Boolean).join(" ");
    $("candidates").replaceChildren(
      ...item.classes.slice(0, LARGE).map(([name, seen, confidence], i) => {
        const button = make("button", { type: "button", className: "quiet", title: "the image shows this" }, make("span", { textContent: `${name}${seen ? "" : " (unseen)"}` }), make("span", { textContent: percent(confidence) }));
        button.addEventListener("click", () => {
          decide([[row, name]]);
          $("view").close();
        });
        if (i === 0) button.autofocus = true;
        return make("li", {}, button);
      }),
    );
    $("why").hidden = !item.attributes.length;
    $("reasons").replaceChildren(...item.attributes.map((text) => make("li", { textContent: text })));
    $("view").showModal();
    if (!store.reasons || item.error) return;
    try {
      const found = await store.reasons(item);
      if (!$("view").open || $("view-title").textContent !== item.image) return;
      heats = new Map(found.reasons.map((r) => [r.label, r.heat]));
      $("reasons").replaceChildren(
        ...found.reasons.map((r) => {
          const button = make("button", { type: "button", className: "quiet", title: "show where the model looked for it", aria: { pressed: "false" } }, make("span", { textContent: r.label }), make("span", { textContent: signed(r.evidence) }));
          button.addEventListener("click", () => {
            const on = button.getAttribute("aria-pressed") === "false";
            for (const other of $("reasons").querySelectorAll("button")) other.setAttribute("aria-pressed", String(on && other === button));
            if (on) heat(r.label, found.crop);
            else [$("canvas").hidden, $("large").hidden] = [true, false];
          });
          return make("li", {}, button);
        }),
      );
    } catch (error) {
      $("reasons").append(make("li", { className: "soft", textContent: error.message }));
    }
  }

  // Heat map over the image: bright where the attribute's score comes from. Crop: left, top, right, bottom as shares.
  async function heat(name, crop) {
    const image = $("large");
    await image.decode();
    const canvas = $("canvas");
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    drawHeat(canvas, heats.get(name), crop.map((edge, i) => edge * (i % 2 ? height : width)));
    canvas.hidden = false;
    image.hidden = true;
  }

  // ---------------------------------------------------------------- keys and buttons

  function columns() {
    const grid = tiles.get(current)?.parentElement;
    return grid ? getComputedStyle(grid).gridTemplateColumns.split(" ").length : 1;
  }

  function step(key) {
    const grid = tiles.get(current).parentElement;
    const mine = [...grid.children].map((node) => Number(node.dataset.row));
    const place = mine.indexOf(current);
    const at = shown.indexOf(current);
    const wide = columns();
    if (key === "ArrowRight") return shown[at + 1];
    if (key === "ArrowLeft") return shown[at - 1];
    if (key === "Home") return shown[0];
    if (key === "End") return shown.at(-1);
    if (key === "ArrowDown") {
      if (place + wide < mine.length) return mine[place + wide];
      const last = Math.floor((mine.length - 1) / wide);
      return Math.floor(place / wide) < last ? mine.at(-1) : shown[at - place + mine.length];
    }
    return place >= wide ? mine[place - wide] : shown[at - place - 1];
  }

  const keys = {
    a: () => give(answerOf),
    Enter: () => give(answerOf),
    u: () => give(null),
    Delete: () => give(undefined),
    Backspace: () => give(undefined),
    z: undo,
    o: () => view(current),
    " ": () => view(current),
    c: () => $("correct").focus(),
  };

  root.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, dialog, button");
    if (typing || !items?.length || current === null) return;
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey) return;
    if (event.key.startsWith("Arrow") || ["Home", "End"].includes(event.key)) {
      const next = step(event.key);
      if (next !== undefined) focus(next, { extend: event.shiftKey });
    } else if (command && event.key.toLowerCase() === "a") {
      selected = new Set(shown);
      mark();
    } else if (/^[1-9]$/.test(event.key) && !command) {
      const rank = Number(event.key) - 1;
      give((item) => item.classes[rank]?.[0] ?? verdicts.get(item.row));
    } else {
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (!(key in keys) || (command && key !== "z")) return;
      keys[key]();
    }
    event.preventDefault();
  });

  $("sheet").addEventListener("click", (event) => {
    const node = event.target.closest(".tile");
    if (!node) return;
    const row = Number(node.dataset.row);
    if (event.ctrlKey || event.metaKey) {
      if (selected.has(row) && selected.size > 1) selected.delete(row);
      else selected.add(row);
      anchor = row;
      focus(row, { keep: true });
    } else focus(row, { extend: event.shiftKey });
  });
  let pointing = false; // a press sets the focus before its click selects
  $("sheet").addEventListener("pointerdown", () => (pointing = true));
  document.addEventListener("pointerup", () => setTimeout(() => (pointing = false)));
  $("sheet").addEventListener("focusin", (event) => { // by Tab, or by a screen reader
    const node = event.target.closest(".tile");
    if (node && !pointing && Number(node.dataset.row) !== current) focus(Number(node.dataset.row));
  });
  $("sheet").addEventListener("dblclick", (event) => {
    const node = event.target.closest(".tile");
    if (node) view(Number(node.dataset.row));
  });
  $("accept").addEventListener("click", () => give(answerOf));
  $("unknown").addEventListener("click", () => give(null));
  $("clear").addEventListener("click", () => give(undefined));
  $("undo").addEventListener("click", undo);
  $("open").addEventListener("click", () => current !== null && view(current));
  $("close").addEventListener("click", () => $("view").close());
  $("view").addEventListener("close", () => tiles.get(current)?.focus());
  $("correct").addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      correct();
    } else if (event.key === "Escape") tiles.get(current)?.focus();
  });
  for (const id of ["order", "which"]) $(id).addEventListener("change", draw);
  for (const id of ["class", "below"]) $(id).addEventListener("input", draw);

  // Columns of the table that the command exports.
  function table() {
    const header = ["image", "class", "reviewed", "right", "answer", "best_class", "confidence", "seen", "attributes", "error"];
    const rows = items.map((item) => {
      const done = verdicts.has(item.row);
      const [name, seen, confidence] = item.classes[0] ?? [];
      const right = done ? verdicts.get(item.row) === answerOf(item) : null;
      const answer = item.error ? [null, null, null, null] : [words(answerOf(item)), name, confidence, seen];
      return [item.image, labelOf(item), done, right, ...answer, item.attributes.join("; "), item.error];
    });
    return [header, ...rows];
  }

  // Buttons and links of the store: {text, href} or {text, run, id}; the result of run is displayed.
  function tools() {
    const nodes = store.tools.map(({ text, href, run, id }) => {
      if (href) return make("a", { className: "button quiet", href, download: href.split("/").at(-1), textContent: text });
      const button = make("button", { type: "button", className: "quiet", id: id ?? "", textContent: text });
      button.addEventListener("click", async () => {
        complain("");
        button.disabled = true;
        try {
          const message = await run({ table, items, verdicts });
          if (message) $("summary").textContent = message;
        } catch (error) {
          complain(error.message);
        }
        button.disabled = false;
      });
      return button;
    });
    $("tools").replaceChildren(...nodes);
  }

  // Show the current images and verdicts.
  async function load() {
    try {
      data = await store.load();
      items = data.items;
      verdicts.clear();
      for (const [row, verdict] of data.verdicts) verdicts.set(row, verdict);
      undone.length = 0;
      $("undo").disabled = true;
      const option = (name) => make("option", { value: name });
      $("classes").replaceChildren(...[...data.classes, UNKNOWN].map(option));
      $("answers").replaceChildren(...[...new Set(items.map(labelOf))].filter(Boolean).sort().map(option));
      draw();
    } catch (error) {
      complain(error.message);
      $("summary").textContent = "";
    }
  }

  tools();
  return load;
}
