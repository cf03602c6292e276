// One answer on the page, while it grows and when it is done. However much a model writes, and however long
// its lines are, the page stays usable: work is done once a frame, on the part that is still open.

import { nodes } from "./markdown.js";
import { visible } from "./visible.js";

// Beyond these Markdown gives way to plain text, in pieces that the browser lays out when they are seen.
const MAX_MARKDOWN = 150000;
const MAX_OPEN_BLOCK = 12000;
const MAX_LINE = 8000;
const PIECE = 8000;
const GAP_MS = 70;

export class Answer {
  #body;
  #texts;
  #text = "";
  #open = "";
  #openHolder = null;
  #plain = null;
  #unshown = "";
  #lineLength = 0;
  #frame = 0;
  #shownMs = 0;
  #onShown;

  constructor(body, texts, onShown) {
    this.#body = body;
    this.#texts = texts;
    this.#onShown = onShown;
    body.dir = "auto";
    body.classList.add("pg-text");
  }

  get text() {
    return this.#text;
  }

  get isPlain() {
    return this.#plain !== null;
  }

  add(text) {
    this.#text += text;
    this.#unshown += text;
    if (!this.#frame) this.#frame = requestAnimationFrame((now) => this.#tick(now));
  }

  // The last of it has come: show all, with colours where that is cheap.
  finish() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#show();
    if (!this.#plain) this.#body.replaceChildren(nodes(visible(this.#text), { decorate: true, texts: this.#texts }));
    this.#onShown();
  }

  #tick(now) {
    if (now - this.#shownMs < GAP_MS) {
      this.#frame = requestAnimationFrame((later) => this.#tick(later));
      return;
    }
    this.#frame = 0;
    this.#shownMs = now;
    this.#show();
    this.#onShown();
  }

  #show() {
    // A sign of two halves may be cut between two messages.
    let fresh = this.#unshown;
    this.#unshown = "";
    if (/[\ud800-\udbff]$/.test(fresh)) {
      this.#unshown = fresh.slice(-1);
      fresh = fresh.slice(0, -1);
    }
    if (!fresh) return;
    const isHuge = this.#text.length > MAX_MARKDOWN || this.#longestLine(fresh) > MAX_LINE;
    if (this.#plain || isHuge) this.#showPlain(this.#plain ? fresh : this.#open + fresh);
    else this.#showMarkdown(fresh);
  }

  #longestLine(fresh) {
    let longest = 0;
    const lines = fresh.split("\n");
    for (let index = 0; index < lines.length; index++) {
      this.#lineLength = (index ? 0 : this.#lineLength) + lines[index].length;
      longest = Math.max(longest, this.#lineLength);
    }
    return longest;
  }

  // Blocks that are complete stay as they are; only what follows the last blank line is made anew.
  #showMarkdown(fresh) {
    this.#open += fresh;
    const cut = this.#cut();
    if (cut) {
      this.#replaceOpen(this.#open.slice(0, cut));
      this.#openHolder = null;
      this.#open = this.#open.slice(cut);
    }
    if (this.#open.length > MAX_OPEN_BLOCK) {
      const rest = this.#open;
      this.#openHolder?.remove();
      this.#showPlain(rest);
      return;
    }
    if (this.#open) this.#replaceOpen(this.#open);
  }

  #replaceOpen(text) {
    if (!this.#openHolder) {
      this.#openHolder = document.createElement("div");
      this.#openHolder.className = "pg-block";
      this.#body.append(this.#openHolder);
    }
    this.#openHolder.replaceChildren(nodes(visible(text), { decorate: false, texts: this.#texts }));
  }

  // Where the last complete block ends: behind a blank line that is not inside a code block.
  #cut() {
    let cut = 0;
    let at = 0;
    let inFence = false;
    for (const line of this.#open.split("\n")) {
      at += line.length + 1;
      if (/^ {0,3}(```|~~~)/.test(line)) inFence = !inFence;
      if (!line.trim() && !inFence && at <= this.#open.length) cut = at;
    }
    return cut;
  }

  #showPlain(text) {
    if (!this.#plain) {
      this.#openHolder?.remove();
      this.#plain = document.createElement("div");
      this.#plain.className = "pg-plain";
      this.#plain.tabIndex = 0;
      this.#body.append(this.#plain);
    }
    const shown = visible(text);
    let last = this.#plain.lastElementChild;
    for (let start = 0; start < shown.length; ) {
      if (!last || last.firstChild.length >= PIECE) {
        last = document.createElement("div");
        last.append(document.createTextNode(""));
        this.#plain.append(last);
      }
      const piece = shown.slice(start, start + PIECE - last.firstChild.length);
      last.firstChild.appendData(piece);
      start += piece.length;
    }
  }
}
