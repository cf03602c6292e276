/* data-tabs around [role=tablist] and panels: <button role="tab" aria-controls="panel-id">.

Without scripts every panel is shown, one under the other. */

function choose(tab, { focus = false } = {}) {
  for (const other of tab.closest('[role="tablist"]').querySelectorAll('[role="tab"]')) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    const panel = document.getElementById(other.getAttribute("aria-controls"));
    if (panel) panel.hidden = !chosen;
  }
  if (focus) tab.focus();
}

function prepare(root) {
  const groups = [...(root.querySelectorAll?.("[data-tabs]") ?? [])];
  if (root.matches?.("[data-tabs]")) groups.push(root);
  for (const group of groups) {
    const tabs = [...group.querySelectorAll('[role="tab"]')];
    const first = tabs.find((tab) => tab.getAttribute("aria-selected") === "true") ?? tabs[0];
    if (first) choose(first);
  }
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest?.('[data-tabs] [role="tab"]');
  if (tab) choose(tab);
});

document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.('[data-tabs] [role="tab"]');
  if (!tab) return;
  const tabs = [...tab.closest('[role="tablist"]').querySelectorAll('[role="tab"]')];
  const at = tabs.indexOf(tab);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  choose(tabs[(next + tabs.length) % tabs.length], { focus: true });
});

document.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
prepare(document);
