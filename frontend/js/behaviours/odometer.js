/* Drums roll only when the number on them has really changed, and not at all where motion is unwelcome. */

const ROLL_MS = 320;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const last = new Map();

function digits(meter) {
  return [...meter.querySelectorAll(".odometer-drum > span:not(.odometer-leaving)")];
}

function roll(meter, before, grows) {
  const now = digits(meter);
  // From the right, as drums are geared: a meter may have got one more of them.
  for (let place = 1; place <= Math.min(now.length, before.length); place += 1) {
    const digit = now[now.length - place];
    const old = before[before.length - place];
    if (digit.textContent === old) continue;
    const leaving = document.createElement("span");
    leaving.className = "odometer-leaving";
    leaving.textContent = old;
    digit.after(leaving);
    const [from, to] = grows ? ["100%", "-100%"] : ["-100%", "100%"];
    const timing = { duration: ROLL_MS, easing: "cubic-bezier(0.3, 0, 0.1, 1)" };
    digit.animate([{ transform: `translateY(${from})` }, { transform: "none" }], timing);
    leaving.animate([{ transform: "none" }, { transform: `translateY(${to})` }], timing).finished.finally(() => leaving.remove());
  }
}

/* Looks at every meter under `root`; exported for pages that write numbers themselves. */
export function watchMeters(root) {
  for (const meter of root.querySelectorAll?.("[data-odometer]") ?? []) {
    const key = meter.dataset.odometer;
    const known = last.get(key);
    const value = Number(meter.getAttribute("value"));
    const texts = digits(meter).map((digit) => digit.textContent);
    if (known && known.value !== value && !still.matches) roll(meter, known.texts, value > known.value);
    last.set(key, { value, texts });
  }
}

document.addEventListener("htmx:load", (event) => watchMeters(event.detail.elt.parentElement ?? event.detail.elt));
watchMeters(document);
