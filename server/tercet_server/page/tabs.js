// Tabs as the ARIA practices have them: arrow keys move, Home and End go to the ends.

/** Make the tabs within a node work; returns a function that shows a panel by its id. */
export function tabs(within) {
  const all = [...within.querySelectorAll("[role=tab]")];

  function select(tab) {
    for (const each of all) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", String(chosen));
      each.tabIndex = chosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
    }
  }

  all.forEach((tab, i) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", event => {
      const steps = { ArrowRight: i + 1, ArrowLeft: i - 1 + all.length, Home: 0, End: all.length - 1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const next = all[steps[event.key] % all.length];
      select(next);
      next.focus();
    });
  });
  return id => select(all.find(tab => tab.getAttribute("aria-controls") === id));
}
