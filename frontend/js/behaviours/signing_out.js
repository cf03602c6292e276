/* Signing out leaves nothing of the playground in this browser: neither system prompts nor settings nor which
   run went on. Other tabs have a session storage of their own, so they are told. */

const OURS = "sluice.playground.";
const SIGNAL = "sluice.signed-out";

function forget() {
  for (const store of [sessionStorage, localStorage]) {
    for (const name of Object.keys(store)) {
      if (name.startsWith(OURS)) store.removeItem(name);
    }
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-signs-out]")) return;
  try {
    forget();
    localStorage.setItem(SIGNAL, String(Date.now()));
    localStorage.removeItem(SIGNAL);
  } catch {
    // A browser that keeps nothing has nothing to forget.
  }
});

window.addEventListener("storage", (event) => {
  if (event.key === SIGNAL && event.newValue !== null) forget();
});
