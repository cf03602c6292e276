// The settings at the right: read, checked, and remembered in this browser. The model is in the address, so
// that a link to "this model in the playground" works; the system prompt lives as long as the tab.

const STORE = "sluice.playground.settings";
const NUMBERS = { temperature: "pg-temperature", top_p: "pg-top-p", max_tokens: "pg-max-tokens", seed: "pg-seed" };

const byId = (id) => document.getElementById(id);

export class Settings {
  #models;
  #organization;
  #texts;

  constructor({ models, organization, texts }, onChange) {
    this.#models = new Map(models.map((model) => [model.slug, model]));
    this.#organization = organization;
    this.#texts = texts;
    this.#restore();
    byId("pg-settings").addEventListener("input", () => {
      this.#remember();
      this.#bound();
      onChange();
    });
    byId("pg-settings").addEventListener("submit", (event) => event.preventDefault());
    byId("pg-reset").addEventListener("click", () => {
      for (const id of [...Object.values(NUMBERS), "pg-stop-texts", "pg-system"]) byId(id).value = "";
      this.#remember();
      this.#bound();
      onChange();
    });
    this.#bound();
  }

  get model() {
    return byId("pg-model").value;
  }

  get system() {
    return byId("pg-system").value;
  }

  get isValid() {
    return byId("pg-settings").reportValidity();
  }

  // Only what is set: the rest is the model's own default.
  get parameters() {
    const found = {};
    for (const [name, id] of Object.entries(NUMBERS)) {
      if (byId(id).value !== "") found[name] = Number(byId(id).value);
    }
    const stop = byId("pg-stop-texts").value.split("\n").filter((line) => line !== "").slice(0, 4);
    if (stop.length) found.stop = stop;
    return found;
  }

  set maxTokens(count) {
    byId("pg-max-tokens").value = String(count);
    this.#remember();
  }

  // No more output than the model can give.
  #bound() {
    const model = this.#models.get(this.model);
    const input = byId("pg-max-tokens");
    input.max = String(model.maxOutput);
    input.placeholder = String(Math.min(model.defaultCap, model.maxOutput));
    for (const [index, name] of ["input", "cached", "output"].entries()) {
      byId(`pg-price-${name}`).textContent = model.prices[index];
    }
    byId("pg-max-help").textContent = this.#texts.maxOutput
      .replace("%(max)s", model.maxOutput.toLocaleString(document.documentElement.lang))
      .replace("%(cap)s", Number(input.placeholder).toLocaleString(document.documentElement.lang));
  }

  #remember() {
    const address = new URL(location.href);
    address.searchParams.set("model", this.model);
    history.replaceState(history.state, "", address);
    const kept = { model: this.model, parameters: this.parameters };
    try {
      localStorage.setItem(`${STORE}.${this.#organization}`, JSON.stringify(kept));
      sessionStorage.setItem(`${STORE}.system.${this.#organization}`, this.system);
    } catch {
      // A browser that keeps nothing forgets the settings, and that is all.
    }
  }

  #restore() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(`${STORE}.${this.#organization}`) ?? "{}");
      byId("pg-system").value = sessionStorage.getItem(`${STORE}.system.${this.#organization}`) ?? "";
    } catch {
      kept = {};
    }
    const asked = new URLSearchParams(location.search).get("model") ?? kept.model;
    if (this.#models.has(asked)) byId("pg-model").value = asked;
    const given = kept.parameters ?? {};
    for (const [name, id] of Object.entries(NUMBERS)) {
      if (typeof given[name] === "number") byId(id).value = String(given[name]);
    }
    if (Array.isArray(given.stop)) byId("pg-stop-texts").value = given.stop.join("\n");
  }
}
