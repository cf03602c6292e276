// The socket of the page: opens, says how it is, and comes back by itself where that makes sense.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;
// Closed for a reason that trying again does not change.
const FINAL = new Set([4401, 4403, 4404, 4429]);

export class Socket {
  #path;
  #on;
  #socket = null;
  #pauseMs = FIRST_PAUSE_MS;
  #timer = 0;
  #isPaused = false;

  // on: {open(), message(value), lost(code, isFinal)}
  constructor(path, on) {
    this.#path = path;
    this.#on = on;
    window.addEventListener("online", () => this.#again(0));
    // A page that comes back from the browser's cache has a dead socket.
    window.addEventListener("pageshow", (event) => event.persisted && this.#again(0));
    this.#open();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  send(message) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Closes until it is resumed; nobody is told that it was lost.
  pause() {
    this.#isPaused = true;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  resume() {
    this.#isPaused = false;
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#again(0);
  }

  #open() {
    const url = new URL(this.#path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.#socket = socket;
    let isOpened = false;
    socket.addEventListener("open", () => {
      if (this.#socket !== socket) return;
      isOpened = true;
      this.#on.open();
    });
    socket.addEventListener("message", (event) => {
      if (this.#socket !== socket) return;
      this.#pauseMs = FIRST_PAUSE_MS;
      this.#on.message(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => {
      if (this.#socket !== socket) return;
      const isFinal = FINAL.has(event.code);
      this.#on.lost(event.code, isFinal, isOpened);
      if (!isFinal) this.#again(this.#pauseMs * (0.75 + Math.random() / 2));
      this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    });
  }

  #again(pauseMs) {
    if (this.#isPaused) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!this.#socket || this.#socket.readyState >= WebSocket.CLOSING) this.#open();
    }, pauseMs);
  }
}
