/* What the server says once stays in sight wherever the page is scrolled to, until it is closed: after a dialog
the page comes back where it was, far below its beginning. */

import { text } from "./texts.js";

for (const message of document.querySelectorAll("#notices > [data-message]")) {
  const close = document.createElement("button");
  close.type = "button";
  close.className = "notice-close";
  close.textContent = "×";
  close.setAttribute("aria-label", text("close"));
  close.addEventListener("click", () => message.remove());
  message.append(close);
}
