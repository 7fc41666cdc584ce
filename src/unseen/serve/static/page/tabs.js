// The tabs; the address remembers the open one.

import { $, complain } from "./elements.js";
import { tell } from "./state.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const panelOf = (tab) => tab.getAttribute("aria-controls");

export const isOpen = (panel) => !$(panel).hidden;

export function openTab(panel, focus = false) {
  if (!isOpen(panel)) complain(""); // it was about the other tab
  for (const tab of tabs) {
    const chosen = panelOf(tab) === panel;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(panelOf(tab)).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  history.replaceState(null, "", `#${panel}`);
  tell("tab", panel);
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => openTab(panelOf(tab)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step ? tabs.at((i + step) % tabs.length) : { Home: tabs[0], End: tabs.at(-1) }[event.key];
    if (next) {
      event.preventDefault();
      openTab(panelOf(next), true);
    }
  });
});

// The tab that the address names.
export function openNamedTab() {
  const named = tabs.map(panelOf).find((panel) => `#${panel}` === location.hash);
  if (named) openTab(named);
}
