// Which run is going on, so that the page can say after a reload what became of it. No text is kept: only
// the id of the request or, before it has one, the time when it was sent.

export class Memory {
  #key;

  constructor(organization) {
    this.#key = `sluice.playground.run.${organization}`;
  }

  keep(value) {
    try {
      sessionStorage.setItem(this.#key, String(value));
    } catch {
      // Without storage a reload says nothing; the usage page does.
    }
  }

  forget() {
    try {
      sessionStorage.removeItem(this.#key);
    } catch {
      // As above.
    }
  }

  // The question to ask the server about the run that was lost sight of, or null.
  question() {
    let kept = null;
    try {
      kept = sessionStorage.getItem(this.#key);
    } catch {
      return null;
    }
    if (!kept) return null;
    if (kept.startsWith("req_")) return { type: "ended", request_id: kept };
    const sinceS = Math.ceil((Date.now() - Number(kept)) / 1000) + 2;
    return { type: "ended", since_s: Math.max(0, Math.min(3600, sinceS || 0)) };
  }
}
