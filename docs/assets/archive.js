// Sorts the archive's tables by a column, and filters the one of experiments. What is chosen is kept
// in the address. Without this script a table is in the order in which it was written.
const chosen = new URLSearchParams(location.search);

const remember = (key, value) => {
  if (value) chosen.set(key, value);
  else chosen.delete(key);
  const query = chosen.toString();
  history.replaceState(null, "", `${location.pathname}${query && `?${query}`}${location.hash}`);
};

const sortable = (table) => {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();

  const sort = (column, down) => {
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (!x || !y) return !x - !y; // what is not known comes last, either way
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    const name = head.textContent;
    button.type = "button";
    button.textContent = name;
    button.title = `Sort by ${name}`;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      sort(column, down);
      if (table.matches(".grug-experiments")) remember("sort", `${down ? "-" : ""}${name}`);
    });
    head.replaceChildren(button);
  });
  return (name) => {
    const column = heads.findIndex((head) => head.textContent === name.replace(/^-/, ""));
    if (column >= 0) sort(column, name.startsWith("-"));
  };
};

const slug = (value) => value.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");

const labelled = (name, field) => {
  const label = document.createElement("label");
  label.append(`${name} `, field);
  return label;
};

const choice = (name, values) => {
  const select = document.createElement("select");
  select.append(new Option(`any ${name}`, ""), ...values.map((value) => new Option(value, slug(value))));
  return select;
};

const filterable = (table) => {
  const rows = [...table.tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const nodes = new Map(
    [...document.querySelectorAll(".grug-tree a")].map((node) => [
      node.getAttribute("href").replace(/^.*\/|\.html$/g, ""),
      node,
    ]),
  );
  const words = document.createElement("input");
  words.type = "search";
  // Not `q`, by which the theme opens its own search.
  const fields = {
    words,
    status: choice("status", table.dataset.statuses.split("|")),
    bucket: choice("bucket", table.dataset.buckets.split("|")),
  };
  const count = document.createElement("output");

  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!fields.status.value || row.dataset.status === fields.status.value) &&
        (!fields.bucket.value || row.dataset.bucket === fields.bucket.value) &&
        wanted.every((word) => texts.get(row).includes(word));
      row.hidden = !fits;
      nodes.get(row.id)?.classList.toggle("grug-out", !fits);
      shown += fits;
    }
    count.value = shown === rows.length ? `${shown} experiments` : `${shown} of ${rows.length} experiments`;
  };

  for (const [key, field] of Object.entries(fields)) {
    field.value = chosen.get(key) ?? "";
    if (field.selectedIndex < 0) field.value = "";
    field.addEventListener("input", () => {
      remember(key, field.value);
      show();
    });
  }
  const form = document.createElement("div");
  form.className = "grug-filters";
  form.setAttribute("role", "search");
  form.setAttribute("aria-label", "Experiments");
  form.append(
    labelled("Words", fields.words),
    labelled("Status", fields.status),
    labelled("Bucket", fields.bucket),
    count,
  );
  table.before(form);
  show();
};

document.querySelectorAll("table.grug-index").forEach((table) => {
  const sort = sortable(table);
  if (!table.matches(".grug-experiments")) return;
  if (chosen.get("sort")) sort(chosen.get("sort"));
  filterable(table);
});
