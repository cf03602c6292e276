// The page of the playground. The conversation lives here and nowhere else: a reload forgets it.

import { refreshBalance } from "./balance.js";
import { Memory } from "./memory.js";
import { Meter, money } from "./meter.js";
import { Notices } from "./notices.js";
import { Settings } from "./settings.js";
import { snippets } from "./snippets.js";
import { Socket } from "../socket.js";
import { AssistantTurn, button, userTurn } from "./turn.js";

const byId = (id) => document.getElementById(id);
const filled = (text, values) => text.replace(/%\((\w+)\)[sd]/g, (_, name) => values[name] ?? "");

export function begin() {
  const data = JSON.parse(byId("pg-data").textContent);
  new Playground(data);
}

class Playground {
  constructor(data) {
    this.data = data;
    this.texts = data.texts;
    // {role, content, item}; an answer's entry is added when it is complete.
    this.turns = [];
    this.run = null;
    this.runs = 0;
    this.meter = new Meter();
    this.memory = new Memory(data.organization);
    this.notices = new Notices(byId("pg-notices"));
    this.settings = new Settings(data, () => this.#showCode());
    this.socket = new Socket(data.socket, {
      open: () => this.#opened(),
      message: (message) => this.#heard(message),
      lost: (code, isFinal) => this.#lost(code, isFinal),
    });
    // The conversation does not outlive a reload; what is told about it stands at the top.
    history.scrollRestoration = "manual";
    this.#state(this.texts.connecting);
    this.#listen();
    this.#showCode();
  }

  #listen() {
    const input = byId("pg-input");
    byId("pg-composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    input.addEventListener("keydown", (event) => {
      // Enter that picks a word of an input method is not meant for us, and phones have no Shift+Enter.
      const sends = event.ctrlKey || event.metaKey || (!event.shiftKey && !matchMedia("(hover: none)").matches);
      if (event.key === "Enter" && sends && !event.isComposing) {
        event.preventDefault();
        this.#send();
      }
    });
    input.addEventListener("input", () => this.#fit());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.run && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        this.#stop();
      }
    });
    byId("pg-stop").addEventListener("click", () => this.#stop());
    byId("pg-clear").addEventListener("click", () => this.#clear());
    byId("pg-view-code").addEventListener("click", () => this.#showCode());
    for (const example of document.querySelectorAll("[data-example]")) {
      example.addEventListener("click", () => {
        input.value = example.textContent;
        this.#fit();
        input.focus();
      });
    }
    this.follows = true;
    window.addEventListener(
      "scroll",
      () => {
        const room = document.documentElement;
        this.follows = room.scrollHeight - room.clientHeight - room.scrollTop < 80;
      },
      { passive: true },
    );
    const box = byId("pg-settings-box");
    if (matchMedia("(max-width: 63.99rem)").matches) box.open = false;
  }

  // What the person does.

  #send() {
    const input = byId("pg-input");
    const text = input.value;
    if (this.run || !text.trim()) return;
    if (!this.settings.isValid) {
      byId("pg-settings-box").open = true;
      this.settings.isValid;
      return;
    }
    if (!this.socket.isOpen) {
      this.#notice("lost", this.texts.notConnected, "warn");
      return;
    }
    const size = new Blob([JSON.stringify(this.#body()), text]).size;
    if (size > this.data.maxBytes * 0.98) {
      this.#notice("run", this.texts.closed1009, "bad");
      return;
    }
    input.value = "";
    this.#fit();
    const item = userTurn(text, this.texts);
    byId("pg-turns").append(item);
    this.turns.push({ role: "user", content: text, item });
    this.#ask();
  }

  // Sends the conversation as it stands; its last turn is the person's.
  #ask() {
    this.notices.dismiss("run");
    const body = this.#body();
    const turn = new AssistantTurn(body.model, this.texts, () => this.#follow());
    byId("pg-turns").append(turn.item);
    byId("pg-empty").hidden = true;
    this.run = { number: ++this.runs, turn, requestId: "", isStopped: false };
    const { model, messages, ...parameters } = body;
    this.socket.send({ type: "run", id: this.run.number, model, messages, parameters });
    this.memory.keep(Date.now());
    this.meter.begin();
    this.#tools();
    this.#showButtons();
    this.follows = true;
    this.#follow();
  }

  #body() {
    const system = this.settings.system.trim() ? [{ role: "system", content: this.settings.system }] : [];
    const messages = [...system, ...this.turns.map(({ role, content }) => ({ role, content }))];
    return { model: this.settings.model, messages, ...this.settings.parameters };
  }

  #stop() {
    if (!this.run || this.run.isStopped) return;
    this.run.isStopped = true;
    byId("pg-stop").disabled = true;
    this.socket.send({ type: "stop" });
  }

  #clear() {
    this.#stop();
    if (this.run) this.run.turn.end();
    this.run = null;
    this.memory.forget();
    this.turns = [];
    byId("pg-turns").replaceChildren();
    byId("pg-empty").hidden = false;
    this.notices.dismiss("run");
    this.#say(this.texts.cleared);
    this.#showButtons();
    this.#showCode();
    byId("pg-input").focus();
  }

  #edit(index) {
    const { content } = this.turns[index];
    this.#cutFrom(index);
    byId("pg-input").value = content;
    this.#fit();
    byId("pg-input").focus();
  }

  #cutFrom(index) {
    for (let item = this.turns[index].item; item; ) {
      const next = item.nextElementSibling;
      item.remove();
      item = next;
    }
    this.turns.length = index;
    byId("pg-empty").hidden = this.turns.length > 0;
    this.#showButtons();
    this.#showCode();
  }

  // What the server says.

  #opened() {
    this.#state("");
    this.notices.dismiss("lost");
    const question = this.memory.question();
    if (question) this.socket.send(question);
  }

  #heard(message) {
    if (message.type === "ended") {
      this.memory.forget();
      if (message.found) {
        const action = message.receipt_url ? { label: this.texts.receipt, url: message.receipt_url } : null;
        this.#notice("ended", message.text, "", action);
      }
      return;
    }
    if (message.type === "error" && message.id === null && this.run && !this.run.requestId) {
      // It could not even be read, so it is the run that has just been sent.
      this.#failed(message);
      return;
    }
    if (message.type === "error" && message.id === null) {
      this.#notice("run", message.message, "bad", message.action, message.detail);
      return;
    }
    if (!this.run || message.id !== this.run.number) return;
    const { turn } = this.run;
    switch (message.type) {
      case "queued":
        this.run.requestId = message.request_id;
        this.memory.keep(message.request_id);
        break;
      case "started":
        this.meter.started(message.ttft_ms);
        break;
      case "delta":
        turn.add({ text: message.text ?? "", reasoning: message.reasoning ?? "" });
        break;
      case "meter":
        this.meter.reading(message);
        break;
      case "error":
        this.#failed(message);
        break;
      case "done":
        this.#finished(message);
        break;
    }
  }

  #failed(error) {
    const { turn, requestId } = this.run;
    const line = turn.note(error.message, true);
    line.dataset.testid = "error";
    line.dataset.code = error.code;
    line.setAttribute("role", "alert");
    if (error.detail) turn.note(error.detail);
    if (error.action) turn.notes.append(this.#actionOf(error.action));
    // An answer that broke off still gets its receipt.
    if (turn.text || turn.reasoning) return;
    if (requestId) turn.foot.textContent = requestId;
    turn.end();
    this.#over();
  }

  #finished(done) {
    const { turn } = this.run;
    const amount = done.cost_nanos === null ? "" : money(done.cost_nanos, done.currency);
    const values = { out: done.completion_tokens, cost: amount || this.texts.costLater };
    turn.end();
    turn.receipt(done, amount);
    this.meter.done(done);
    if (done.finish_reason === "length") turn.note(this.texts.length);
    const told = {
      stopped: done.completion_tokens ? this.texts.stopped : this.texts.stoppedFree,
      error: this.texts.broken,
    }[done.finish_reason];
    if (told) turn.note(filled(told, values));
    else if (!turn.text && done.finish_reason !== "length") turn.note(this.texts.emptyAnswer);
    this.#say(filled(told ?? this.texts.finished, values));
    this.#over();
    if (done.cost_nanos) refreshBalance();
  }

  #over() {
    const { turn } = this.run;
    if (turn.text) this.turns.push({ role: "assistant", content: turn.text, item: turn.item });
    this.run = null;
    this.meter.halt();
    this.memory.forget();
    this.#tools();
    this.#showButtons();
    this.#showCode();
  }

  #lost(code, isFinal) {
    if (this.run) {
      const { turn, requestId } = this.run;
      turn.end();
      turn.note(code === 1009 ? this.texts.closed1009 : this.texts.lostRun, true);
      const kept = requestId || turn.beganMs;
      this.#over();
      // The receipt of what was delivered is asked for as soon as the connection is back.
      if (code !== 1009) this.memory.keep(kept);
    }
    if (isFinal) {
      const action = code === 4401 ? { label: this.texts.signIn, url: this.data.signIn } : null;
      this.#notice("lost", this.texts[`closed${code - 4000}`], "bad", action);
      this.#state("");
    } else {
      this.#notice("lost", this.texts.lost, "warn");
      this.#state(this.texts.connecting);
    }
    this.#showButtons();
  }

  // What is shown.

  // The last exchange can be changed: its question edited, its answer asked for again.
  #tools() {
    for (const tools of document.querySelectorAll("#pg-turns .pg-tools")) tools.replaceChildren();
    if (this.run) return;
    const last = this.turns.findLastIndex((turn) => turn.role === "user");
    if (last < 0) return;
    const tools = this.turns[last].item.querySelector(".pg-tools");
    tools.append(button(this.texts.edit, () => this.#edit(last), "edit"));
    byId("pg-turns").lastElementChild.querySelector(".pg-tools").append(
      button(this.texts.again, () => this.#againAfter(last), "again"),
    );
  }

  #againAfter(last) {
    for (let item = this.turns[last].item.nextElementSibling; item; ) {
      const next = item.nextElementSibling;
      item.remove();
      item = next;
    }
    this.turns.length = last + 1;
    this.#ask();
  }

  #showButtons() {
    const isRunning = this.run !== null;
    // A button that goes away or is switched off would take the focus with it.
    const hadFocus = [byId("pg-stop"), byId("pg-send")].includes(document.activeElement);
    byId("pg-stop").hidden = !isRunning;
    byId("pg-stop").disabled = false;
    byId("pg-send").disabled = isRunning || !this.socket.isOpen;
    byId("pg-clear").disabled = !this.turns.length && !isRunning;
    // On a touch screen the focus would bring up the keyboard, over the answer.
    if (hadFocus && !matchMedia("(hover: none)").matches) byId("pg-input").focus();
  }

  #state(text) {
    byId("pg-state").textContent = text;
    byId("playground").dataset.connection = this.socket?.isOpen ? "open" : "closed";
    if (this.socket) this.#showButtons();
  }

  #notice(name, text, kind = "", action = null, detail = "") {
    this.notices.show(name, [text, detail], kind, action && this.#actionOf(action));
  }

  #actionOf({ label, url, max_tokens: maxTokens }) {
    if (maxTokens) {
      const made = button(label, () => {
        this.settings.maxTokens = maxTokens;
        const last = this.turns.findLastIndex((turn) => turn.role === "user");
        if (last >= 0 && !this.run) this.#againAfter(last);
      }, "use-cap");
      made.className = "button button-small";
      return made;
    }
    const link = document.createElement("a");
    link.className = "button button-small";
    link.href = url;
    link.textContent = label;
    return link;
  }

  // Follows the growing answer as long as the person has not scrolled away from it.
  #follow() {
    const room = document.documentElement;
    if (this.follows) room.scrollTop = room.scrollHeight;
  }

  #say(text) {
    byId("pg-said").textContent = text;
  }

  #fit() {
    const input = byId("pg-input");
    input.rows = Math.min(12, Math.max(3, input.value.split("\n").length + 1));
  }

  #showCode() {
    const body = this.#body();
    // The call that made the last answer, which ends in what the person said.
    while (body.messages.at(-1)?.role === "assistant") body.messages.pop();
    if (body.messages.at(-1)?.role !== "user") {
      body.messages.push({ role: "user", content: byId("pg-input").value || "Hello" });
    }
    const found = snippets(body, this.data.apiBase);
    byId("pg-code-curl").textContent = found.curl;
    byId("pg-code-python").textContent = found.python;
    byId("pg-code-js").textContent = found.js;
  }
}
