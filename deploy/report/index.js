(() => {  // search, chips, sorting and pages of rows; without scripts the table shows everybody
  const SIZE = 50, table = document.getElementById("patients"), body = table.tBodies[0], form = document.getElementById("filter");
  let rows = [...body.rows].map(row => ({
    row, text: row.textContent.toLowerCase(), verdict: row.dataset.verdict, grade: row.dataset.grade,
    keys: [...row.cells].map(cell => {
      const data = cell.querySelector("data");
      return data ? Number(data.value) : cell.textContent.trim();
    }),
  }));
  const shown = document.getElementById("shown"), words = document.getElementById("words"), chosen = { verdict: new Set(), grade: new Set() };
  let found = rows, page = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / SIZE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const first = page * SIZE, some = found.slice(first, first + SIZE);
    body.replaceChildren(...some.map(one => one.row));
    shown.textContent = found.length ? `${first + 1} to ${first + some.length} of ${found.length}` : "nobody";
    document.querySelectorAll("[data-step]").forEach(button => {
      button.disabled = button.dataset.step < 0 ? page === 0 : page === pages - 1;
    });
  };
  const filter = () => {
    const parts = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.filter(one =>
      ["verdict", "grade"].every(kind => !chosen[kind].size || chosen[kind].has(one[kind])) && parts.every(part => one.text.includes(part)));
    page = 0;
    show();
  };
  words.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  form.querySelectorAll("button").forEach(button => button.addEventListener("click", () => {
    const kind = button.dataset.verdict ? "verdict" : "grade", word = button.dataset[kind], on = !chosen[kind].has(word);
    chosen[kind][on ? "add" : "delete"](word);
    button.setAttribute("aria-pressed", String(on));
    filter();
  }));
  document.querySelectorAll("[data-step]").forEach(button => button.addEventListener("click", () => { page += Number(button.dataset.step); show(); }));
  const order = new Intl.Collator(undefined, { numeric: true });
  table.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
    const head = button.parentElement, at = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : order.compare(a, b);
    rows = rows.toSorted((a, b) => (up ? 1 : -1) * compare(a.keys[at], b.keys[at]));
    filter();
  }));
  addEventListener("beforeprint", () => body.replaceChildren(...found.map(one => one.row)));
  addEventListener("afterprint", show);
  form.hidden = false;
  document.getElementById("pager").hidden = rows.length <= SIZE;
  show();
})();
