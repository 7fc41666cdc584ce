// What the modules share: what the server says of the model, what is shown, and news of changes to either.

export const state = {
  loaded: null, // promise of the first answer of /api/about
  about: null, // /api/about
  info: new Map(), // attribute name -> its entry in /api/about
  classes: [],
  shown: null, // the image: {file, bitmap, answer, heats, corrections, top, every, target, rival, pinned, hovered}
  batch: { rows: [], running: false, stop: false }, // rows: {file, found, origins, node}
  opened: null, // the class whose images are shown
};

const hearers = new Map(); // event -> functions

// Call a function at every event of a kind:
//   image      another image is shown; its answer follows
//   answer     the answer for the image
//   heat       the attribute whose heat map is shown
//   classes    the classes, or what the server says of them
//   tab        the open tab, by the id of its panel
//   predicted  all of many images are done
// A module tells of what it changed and does not know who draws it, so no two modules import each other.
export const when = (event, hear) => hearers.set(event, [...(hearers.get(event) ?? []), hear]);

export const tell = (event, detail) => Promise.all((hearers.get(event) ?? []).map((hear) => hear(detail)));

export const labelOf = (attribute) => state.info.get(attribute)?.label ?? attribute;

// A class is known by its first name, whatever it is called now: the name alone may have passed to another class.
export const originOf = (name) => state.classes.find((c) => c.name === name)?.origin ?? name;
export const nameNow = (origin) => state.classes.find((c) => (c.origin ?? c.name) === origin)?.name;
