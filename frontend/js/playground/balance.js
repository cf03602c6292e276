// The balance in the top bar is the server's to write; its meter rolls to what is left.
export async function refreshBalance() {
  const shown = document.querySelector(".balance");
  if (!shown) return;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(".balance");
    if (!fresh) return;
    shown.replaceWith(document.adoptNode(fresh));
    document.dispatchEvent(new CustomEvent("htmx:load", { detail: { elt: fresh } }));
  } catch {
    // The next page shows it.
  }
}
