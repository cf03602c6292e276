// One turn of the conversation on the page.

import { Answer } from "./answer.js";
import { milliseconds } from "./meter.js";
import { visible } from "./visible.js";

const make = (name, className, text) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

export function button(text, action, testId) {
  const made = make("button", "button button-quiet button-small", text);
  made.type = "button";
  made.addEventListener("click", action);
  if (testId) made.dataset.testid = testId;
  return made;
}

export function userTurn(text, texts) {
  const item = make("li", "pg-turn pg-turn-user");
  item.dataset.testid = "turn-user";
  const body = make("div", "pg-text pg-plain", visible(text));
  body.dir = "auto";
  item.append(make("p", "pg-who", texts.you), body, make("div", "pg-tools"));
  return item;
}

export class AssistantTurn {
  constructor(model, texts, onShown) {
    this.texts = texts;
    this.beganMs = Date.now();
    this.item = make("li", "pg-turn pg-turn-assistant");
    this.item.dataset.testid = "turn-assistant";
    this.item.setAttribute("aria-busy", "true");
    this.body = make("div");
    this.body.dataset.testid = "answer";
    this.wait = make("p", "pg-wait muted", texts.waiting);
    this.notes = make("div", "pg-notes");
    this.foot = make("p", "pg-foot");
    this.foot.dataset.testid = "receipt";
    this.tools = make("div", "pg-tools");
    this.item.append(make("p", "pg-who", model), this.wait, this.body, this.notes, this.foot, this.tools);
    this.answer = new Answer(this.body, texts, onShown);
    this.reasoning = null;
    this.onShown = onShown;
  }

  get text() {
    return this.answer.text;
  }

  add({ text, reasoning }) {
    this.wait.remove();
    if (reasoning) {
      if (!this.reasoning) {
        this.box = make("details", "pg-reasoning");
        this.box.open = true;
        const body = make("div");
        this.box.append(make("summary", "", this.texts.reasoning), body);
        this.body.before(this.box);
        this.reasoning = new Answer(body, this.texts, this.onShown);
      }
      this.reasoning.add(reasoning);
    }
    if (text) {
      if (this.box && !this.text) this.box.open = false;
      this.answer.add(text);
    }
  }

  end() {
    this.wait.remove();
    this.item.removeAttribute("aria-busy");
    this.reasoning?.finish();
    this.answer.finish();
    if (this.answer.isPlain) this.note(this.texts.plain);
  }

  note(text, isBad = false) {
    const line = make("p", isBad ? "pg-note pg-note-bad" : "pg-note", text);
    this.notes.append(line);
    return line;
  }

  // The last line of a turn: what it took and what it cost.
  receipt(done, amount) {
    const { texts } = this;
    const kind = done.provenance === "ESTIMATED" ? texts.estimated : texts.measured;
    const parts = [`${done.prompt_tokens} → ${done.completion_tokens}`, amount || texts.costLater];
    if (done.ttft_ms !== null) parts.push(milliseconds(done.ttft_ms));
    if (done.provenance) parts.push(kind);
    this.foot.textContent = parts.join(" · ");
    if (done.receipt_url) {
      const link = make("a", "", texts.receipt);
      link.href = done.receipt_url;
      this.foot.append(" · ", link);
    }
  }
}
