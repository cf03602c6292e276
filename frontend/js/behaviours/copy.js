/* data-copy="#id": copies the text or the value of that element. */

import { announce } from "./announce.js";
import { text } from "./texts.js";
import { toast } from "./toast.js";

const SHOWN_MS = 1600;

async function copy(button) {
  const source = document.querySelector(button.dataset.copy);
  if (!source) return;
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
  } catch {
    select(source);
    toast(text("copyFailed"));
    return;
  }
  announce(text("copied"));
  show(button);
}

function show(button) {
  if (button.dataset.shows) return;
  button.dataset.shows = "copied";
  const kept = [...button.childNodes];
  const word = document.createElement("span");
  word.textContent = text("copied");
  // The button keeps its width, or what stands beside it would jump.
  button.style.minWidth = `${button.offsetWidth}px`;
  button.replaceChildren(word);
  setTimeout(() => {
    button.replaceChildren(...kept);
    button.style.minWidth = "";
    delete button.dataset.shows;
  }, SHOWN_MS);
}

function select(source) {
  if (source.select) {
    source.select();
    return;
  }
  getSelection()?.selectAllChildren(source);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) copy(button);
});
