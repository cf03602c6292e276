// The meter under the conversation: it runs while tokens flow and ends on what the settlement says.

const SYMBOLS = { USD: "$", CNY: "¥" };
const byId = (id) => document.getElementById(id);

// As people read an amount: between two and nine decimals, never rounded.
export function money(nanos, currency) {
  const units = Math.trunc(nanos / 1e9);
  const decimals = String(nanos - units * 1e9).padStart(9, "0").replace(/0+$/, "").padEnd(2, "0");
  return `${SYMBOLS[currency] ?? `${currency} `}${units}.${decimals}`;
}

export const milliseconds = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

export class Meter {
  #firstTokenMs = 0;
  #out = 0;

  begin() {
    this.#firstTokenMs = 0;
    this.#out = 0;
    for (const id of ["pg-ttft", "pg-speed", "pg-in", "pg-out", "pg-cost"]) byId(id).textContent = "–";
    byId("pg-meter").dataset.state = "waiting";
  }

  started(ttftMs) {
    this.#firstTokenMs = performance.now();
    byId("pg-ttft").textContent = milliseconds(ttftMs);
    byId("pg-meter").dataset.state = "running";
  }

  reading({ prompt_tokens: input, completion_tokens: output, cost_nanos: nanos, currency, exact }) {
    this.#out = output;
    const seconds = (performance.now() - this.#firstTokenMs) / 1000;
    byId("pg-in").textContent = String(input);
    byId("pg-out").textContent = String(output);
    if (seconds > 0.3) byId("pg-speed").textContent = (output / seconds).toFixed(1);
    if (nanos !== null) byId("pg-cost").textContent = (exact ? "" : "≈ ") + money(nanos, currency);
  }

  done(done) {
    byId("pg-meter").dataset.state = "done";
    if (done.ttft_ms !== null) byId("pg-ttft").textContent = milliseconds(done.ttft_ms);
    if (done.tokens_per_s !== null) byId("pg-speed").textContent = done.tokens_per_s.toFixed(1);
    byId("pg-in").textContent = String(done.prompt_tokens);
    byId("pg-out").textContent = String(done.completion_tokens);
    if (done.cost_nanos !== null) byId("pg-cost").textContent = money(done.cost_nanos, done.currency);
  }

  halt() {
    byId("pg-meter").dataset.state = "done";
  }
}
