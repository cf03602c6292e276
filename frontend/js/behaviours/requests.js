/* htmx: the CSRF token goes along, and what fails says so with its request id and a way to try again. */

import htmx from "htmx.org";

import { text } from "./texts.js";

document.addEventListener("htmx:configRequest", (event) => {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  if (token && event.detail.verb !== "get") event.detail.headers["X-CSRFToken"] = token;
});

// What is asked for again and again (without an event of a person) waits while nobody looks.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && !event.detail.requestConfig.triggeringEvent) event.preventDefault();
});

function explain(status) {
  if (status === 404 || status === 410) return text("missing");
  if (status === 429) return text("busy");
  return status >= 500 ? text("failed") : text("refused");
}

/* One notice at a time: a poll that fails every two seconds must not fill the page. `markup`: what the server says
in place of our words, such as where to go first. */
function complain(words, detail = {}, markup = "") {
  const region = document.getElementById("notices");
  if (!region) return;
  const box = document.createElement("div");
  box.className = "notice notice-bad";
  box.setAttribute("role", "alert");
  box.dataset.requestFailed = "";
  const requestId = detail.xhr?.getResponseHeader("x-request-id") ?? "";
  if (markup) {
    box.innerHTML = markup;
  } else {
    const line = document.createElement("p");
    line.textContent = words;
    box.append(line);
  }
  if (requestId) {
    const id = document.createElement("p");
    id.className = "small";
    const code = document.createElement("code");
    code.textContent = requestId;
    id.append(`${text("requestId")} `, code);
    box.append(id);
  }
  const retry = retryOf(detail.elt, detail);
  if (retry) {
    const actions = document.createElement("div");
    actions.className = "notice-actions";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button button-small";
    button.textContent = text("retry");
    button.addEventListener("click", () => {
      box.remove();
      retry();
    });
    actions.append(button);
    box.append(actions);
  }
  region.querySelector("[data-request-failed]")?.remove();
  // A modal dialog would hide the notice and silence it.
  const modal = document.querySelector("dialog:modal");
  modal?.querySelector("[data-request-failed]")?.remove();
  if (modal) modal.prepend(box);
  else region.append(box);
  box.scrollIntoView({ block: "nearest" });
}

/* What only reads is asked for again, a form is sent again; a poll comes back by itself. */
function retryOf(element, detail) {
  if (!element?.isConnected) return null;
  if (element instanceof HTMLFormElement) return () => element.requestSubmit();
  const polls = (element.getAttribute("hx-trigger") ?? "").includes("every ");
  if (polls || detail.requestConfig?.verb !== "get") return null;
  const path = detail.pathInfo?.requestPath ?? detail.requestConfig.path;
  return () => htmx.ajax("GET", path, { source: element, target: detail.target });
}

document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  complain(explain(xhr.status), event.detail, xhr.getResponseHeader("x-notice") ? xhr.responseText : "");
});
document.addEventListener("htmx:sendError", (event) => complain(text("unreachable"), event.detail));
document.addEventListener("htmx:timeout", (event) => complain(text("timeout"), event.detail));
document.addEventListener("htmx:swapError", () => complain(text("failed")));

// What works again takes its complaint back, polls above all.
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.successful) document.querySelector("[data-request-failed]")?.remove();
});

// Entries of single pages share this htmx instead of bringing another.
window.htmx = htmx;
