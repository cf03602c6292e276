/* Words come from the page, in its language: data attributes of #texts. */

export function text(name) {
  return document.getElementById("texts")?.dataset[name] ?? "";
}
