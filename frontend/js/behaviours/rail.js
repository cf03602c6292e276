/* The rail can be narrow. A cookie keeps it, so that the server draws the next page right at once. */

const YEAR_S = 365 * 86400;

for (const button of document.querySelectorAll("[data-rail-toggle]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const narrow = root.dataset.rail !== "narrow";
    if (narrow) root.dataset.rail = "narrow";
    else delete root.dataset.rail;
    button.setAttribute("aria-pressed", String(narrow));
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `rail=${narrow ? "narrow" : ""}; Path=/; Max-Age=${narrow ? YEAR_S : 0}; SameSite=Lax${secure}`;
  });
}
