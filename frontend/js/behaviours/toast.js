/* A short word at the edge of the page. It carries nothing that must not be missed. */

import { announce } from "./announce.js";
import { text } from "./texts.js";

const SHOWN_MS = 5000;

export function toast(words) {
  if (!words) return;
  announce(words);
  const region = document.getElementById("toasts");
  if (!region) return;
  const box = document.createElement("div");
  box.className = "toast";
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", text("close"));
  close.addEventListener("click", () => box.remove());
  box.append(words, close);
  region.append(box);
  let timer = 0;
  const leave = () => {
    timer = setTimeout(() => box.remove(), SHOWN_MS);
  };
  // Whoever is reading it keeps it.
  box.addEventListener("pointerenter", () => clearTimeout(timer));
  box.addEventListener("pointerleave", leave);
  box.addEventListener("focusin", () => clearTimeout(timer));
  box.addEventListener("focusout", leave);
  leave();
}

// The server's word: HX-Trigger: {"toast": {"text": "…"}}
document.addEventListener("toast", (event) => toast(event.detail?.text ?? event.detail?.value));
