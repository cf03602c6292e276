// The factory floor: the page comes as a snapshot, and the socket keeps it up to date once a second.
// Figures change without being announced; only how the connection is gets said.

import { Socket } from "../socket.js";
import { fill, fillTotal } from "./rows.js";

const byId = (id) => document.getElementById(id);
const time = new Intl.DateTimeFormat(document.documentElement.lang || undefined, {
  timeStyle: "medium",
  hourCycle: "h23",
});

export function begin(root) {
  new Floor(root);
}

class Floor {
  #root;
  #socket;
  #state = "snapshot";
  // What stops it: the person, the hidden tab, or a reason that trying again does not change.
  #isPaused = false;
  #isFinal = false;

  constructor(root) {
    this.#root = root;
    const button = byId("floor-pause");
    button.hidden = false;
    button.addEventListener("click", () => this.#pause(!this.#isPaused));
    document.addEventListener("visibilitychange", () => this.#seen());
    this.#show("connecting");
    this.#socket = new Socket(root.dataset.socket, {
      open: () => {},
      message: (state) => this.#heard(state),
      lost: (code, isFinal) => this.#lost(code, isFinal),
    });
    this.#seen();
  }

  #heard(state) {
    this.#moment(byId("floor-at"), state.at);
    if (state.books_at) this.#moment(byId("floor-books-at"), state.books_at);
    for (const notice of this.#root.querySelectorAll("[data-when]")) {
      const [name, value] = notice.dataset.when.split("-");
      notice.hidden = state[name] !== value;
    }
    fill(byId("floor-rows"), byId("floor-row"), state.pools, this.#root.dataset.textExact);
    fillTotal(this.#root.querySelector(".floor-totals"), state.total, this.#root.dataset.textExact);
    byId("floor-pools").hidden = !state.pools.length;
    byId("floor-empty").hidden = state.pools.length > 0 || state.books === "unknown";
    byId("floor-hidden").hidden = !state.hidden;
    byId("floor-hidden-count").textContent = String(state.hidden);
    this.#root.dataset.rows = String(state.pools.length);
    this.#show("live");
  }

  #lost(code, isFinal) {
    this.#isFinal = isFinal;
    for (const notice of this.#root.querySelectorAll("[data-closed]")) {
      notice.hidden = notice.dataset.closed !== String(code);
    }
    if (isFinal) byId("floor-pause").hidden = true;
    this.#show(isFinal ? "stopped" : "reconnecting");
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    byId("floor-pause").textContent = this.#root.dataset[isPaused ? "textResume" : "textPause"];
    if (isPaused) this.#show("paused");
    this.#seen();
  }

  // Nobody looks at a hidden tab, so nothing is asked for it.
  #seen() {
    if (this.#isFinal) return;
    if (this.#isPaused || document.hidden) {
      this.#socket.pause();
    } else if (!this.#socket.isOpen) {
      if (this.#state !== "connecting") this.#show("reconnecting");
      this.#socket.resume();
    }
  }

  #show(state) {
    if (state === this.#state) return;
    this.#state = state;
    byId("floor-state").dataset.state = state;
    const name = `text${state[0].toUpperCase()}${state.slice(1)}`;
    byId("floor-state-word").textContent = this.#root.dataset[name] ?? "";
  }

  #moment(element, moment) {
    element.dateTime = moment;
    element.title = `${moment.slice(0, 19).replace("T", " ")} UTC`;
    element.textContent = time.format(new Date(moment));
  }
}
