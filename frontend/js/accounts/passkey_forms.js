// Forms that carry a passkey: <form data-passkey="create|use">. What the browser is asked comes from the JSON
// element named by data-options, or from the address in data-options-url at the moment of asking. The answer goes
// into the field `credential`, and the form is sent. Texts come from the form's data-text-* attributes.

import { createPasskey, isSupported, usePasskey } from "./ceremonies.js";

function report(form, text) {
  const status = form.querySelector("[data-passkey-status]");
  if (!status) return;
  status.textContent = text;
  status.hidden = !text;
}

// Browsers refuse passkeys for addresses without a name.
function isNumber(hostname) {
  return /^[\d.]+$/.test(hostname) || hostname.startsWith("[");
}

async function optionsOf(form) {
  if (!form.dataset.optionsUrl) return JSON.parse(document.querySelector(form.dataset.options).textContent);
  const answer = await fetch(form.dataset.optionsUrl, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}

async function fill(form) {
  const options = await optionsOf(form);
  if (form.dataset.passkey === "create") {
    const passwordless = form.elements.namedItem("passwordless");
    return createPasskey(options.creation_options, Boolean(passwordless && passwordless.checked));
  }
  return usePasskey(options.request_options);
}

async function onSubmit(event) {
  const form = event.target.closest("form[data-passkey]");
  if (!form) return;
  event.preventDefault();
  if (!isSupported()) {
    report(form, form.dataset.textUnsupported);
    return;
  }
  if (isNumber(window.location.hostname)) {
    report(form, form.dataset.textAddress);
    return;
  }
  report(form, "");
  form.setAttribute("aria-busy", "true");
  try {
    form.elements.namedItem("credential").value = JSON.stringify(await fill(form));
    form.submit();
  } catch {
    // The browser says to people itself what it wants to say; the reason is theirs (a time-out, a changed mind).
    report(form, form.dataset.textFailed);
  } finally {
    form.removeAttribute("aria-busy");
  }
}

export function start() {
  document.addEventListener("submit", onSubmit);
}
