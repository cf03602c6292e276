// What the page has to say above the conversation; one notice of each name at a time.

export class Notices {
  #place;

  constructor(place) {
    this.#place = place;
  }

  show(name, lines, kind, action) {
    this.dismiss(name);
    const notice = document.createElement("div");
    notice.className = `notice${kind ? ` notice-${kind}` : ""}`;
    notice.dataset.name = name;
    notice.dataset.testid = `notice-${name}`;
    notice.setAttribute("role", kind === "bad" ? "alert" : "status");
    for (const line of lines.filter(Boolean)) {
      const paragraph = document.createElement("p");
      paragraph.textContent = line;
      notice.append(paragraph);
    }
    if (action) {
      const actions = document.createElement("div");
      actions.className = "notice-actions";
      actions.append(action);
      notice.append(actions);
    }
    this.#place.append(notice);
  }

  dismiss(name) {
    this.#place.querySelector(`[data-name="${name}"]`)?.remove();
  }
}
