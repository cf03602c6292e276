/* Native dialogs: data-dialog="#id" opens, data-dialog-close closes, data-dialog-open opens as soon as it is there.

data-dialog-deliberate: neither Escape nor the backdrop closes it, such as one that shows a secret once. */

function open(dialog) {
  if (!(dialog instanceof HTMLDialogElement) || dialog.open) return;
  dialog.showModal();
  focusFirstField(dialog);
}

// Browsers begin with the Close button, where words go nowhere and Enter throws them away. What is fetched after
// the dialog opened comes here, too; who writes already keeps the place.
function focusFirstField(root) {
  const dialog = root.closest?.("dialog:modal");
  const active = document.activeElement;
  if (!dialog || (active !== document.body && active !== dialog && !active?.matches("[data-dialog-close]"))) return;
  root.querySelector("input:not([type='hidden'], [disabled]), select, textarea")?.focus();
}

function openWaiting(root) {
  for (const dialog of root.querySelectorAll?.("dialog[data-dialog-open]") ?? []) open(dialog);
}

document.addEventListener("click", (event) => {
  const target = event.target;
  const opener = target.closest?.("[data-dialog]");
  if (opener) {
    const dialog = document.querySelector(opener.dataset.dialog);
    if (dialog) {
      event.preventDefault();
      open(dialog);
    }
    return;
  }
  if (target.closest?.("[data-dialog-close]")) {
    event.preventDefault();
    target.closest("dialog")?.close();
  } else if (target instanceof HTMLDialogElement && !("dialogDeliberate" in target.dataset) && isOutside(target, event)) {
    target.close();
  }
});

// A click on the backdrop has the dialog as its target, and so has one on the dialog's own padding.
function isOutside(dialog, event) {
  const box = dialog.getBoundingClientRect();
  return (
    event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom
  );
}

// Browsers let a second Escape through `cancel`; the key itself does not get that far.
document.addEventListener(
  "keydown",
  (event) => {
    if (event.key === "Escape" && document.querySelector("dialog[data-dialog-deliberate]:modal")) event.preventDefault();
  },
  true,
);
document.addEventListener("cancel", (event) => {
  if ("dialogDeliberate" in (event.target.dataset ?? {})) event.preventDefault();
}, true);

document.addEventListener("htmx:load", (event) => {
  const root = event.detail.elt;
  focusFirstField(root);
  if (root.matches?.("dialog[data-dialog-open]")) open(root);
  openWaiting(root);
});
openWaiting(document);
