// Puts a state of the floor into the table: rows by pool, from the page's pattern where one is new.

export function fill(body, pattern, pools, exact) {
  const rows = new Map([...body.rows].map((row) => [row.dataset.pool, row]));
  pools.forEach((pool, place) => {
    let row = rows.get(pool.id);
    if (!row) row = pattern.content.firstElementChild.cloneNode(true);
    rows.delete(pool.id);
    // Moving a row that is in its place would take the focus from what is in it.
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
    fillRow(row, pool, exact);
  });
  for (const row of rows.values()) row.remove();
}

export function fillTotal(list, total, exact) {
  fillCells(list, total.cells);
  fillMoney(list, total.money, exact);
}

function fillRow(row, pool, exact) {
  row.dataset.pool = pool.id;
  row.dataset.code = pool.code;
  row.dataset.place = pool.place;
  row.dataset.flow = pool.fill === null ? "" : "known";
  const link = row.querySelector("[data-link]");
  set(link, pool.code);
  link.title = pool.name;
  for (const one of row.querySelectorAll("a[data-link], a[data-link-only]")) one.setAttribute("href", pool.url);
  for (const note of row.querySelectorAll("[data-note]")) note.hidden = !pool.notes.includes(note.dataset.note);
  for (const word of row.querySelectorAll("[data-place-word]")) word.hidden = word.dataset.placeWord !== pool.place;
  row.querySelector("[data-fill]").setAttribute("width", pool.fill ?? "0");
  const mark = row.querySelector("[data-mark]");
  mark.toggleAttribute("data-none", pool.mark === null);
  mark.setAttribute("x1", pool.mark ?? "0");
  mark.setAttribute("x2", pool.mark ?? "0");
  fillCells(row, pool.cells);
  fillMoney(row, pool.money, exact);
}

function fillCells(where, cells) {
  for (const cell of where.querySelectorAll("[data-cell]")) set(cell, cells[cell.dataset.cell]);
}

function fillMoney(where, money, exact) {
  for (const cell of where.querySelectorAll("[data-money]")) {
    const amounts = money[cell.dataset.money];
    if (JSON.stringify(amounts) === cell.dataset.shown) continue;
    cell.dataset.shown = JSON.stringify(amounts);
    cell.replaceChildren(...(amounts.length ? amounts.map((amount) => amountOf(amount, exact)) : ["–"]));
  }
}

function amountOf({ text, nanos, exact, currency }, wording) {
  const element = document.createElement("data");
  element.className = "money";
  element.value = nanos;
  if (nanos) element.title = wording.replace("%(amount)s", exact).replace("%(currency)s", currency);
  element.textContent = text;
  return element;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
