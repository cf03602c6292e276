/* Says something to people who listen instead of look. */

export function announce(words) {
  const announcer = document.getElementById("announcer");
  if (!announcer) return;
  // The same words twice are announced twice only if the region was empty in between.
  announcer.textContent = "";
  setTimeout(() => {
    announcer.textContent = words;
  }, 50);
}
