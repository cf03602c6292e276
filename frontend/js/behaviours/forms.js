/* data-autosubmit: a form, or one field of it, is sent when it changes.
   data-check-all="name": a tick that ticks all of that name in its form.
   data-confirm-name="exact name": on an input; the form's [data-confirmed] buttons wait for it.
   A plain form is sent once: a second click while the answer is on its way does nothing.
   A form that came back with errors puts the focus on the first of them. */

document.addEventListener("change", (event) => {
  const marked = event.target.closest?.("[data-autosubmit]");
  if (marked) event.target.form?.requestSubmit();
});

document.addEventListener("change", (event) => {
  const all = event.target.closest?.("[data-check-all]");
  if (!all) return;
  for (const box of all.form?.elements ?? []) if (box.type === "checkbox" && box.name === all.dataset.checkAll) box.checked = all.checked;
});

function judge(input) {
  const form = input.form;
  if (!form) return;
  const matches = input.value.trim() === input.dataset.confirmName;
  const marked = form.querySelectorAll("[data-confirmed]");
  const buttons = marked.length ? marked : form.querySelectorAll("button:not([type=button])");
  for (const button of buttons) button.disabled = !matches;
}

function judgeAll(root) {
  for (const input of root.querySelectorAll?.("[data-confirm-name]") ?? []) judge(input);
}

document.addEventListener("input", (event) => {
  if (event.target.matches?.("[data-confirm-name]")) judge(event.target);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "true";
});

// A page that comes back from the browser's memory can be sent again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

document.addEventListener("htmx:load", (event) => judgeAll(event.detail.elt));
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.xhr?.status === 422) event.detail.elt.querySelector?.('[aria-invalid="true"]')?.focus();
});
judgeAll(document);
document.querySelector('main [aria-invalid="true"]')?.focus();
