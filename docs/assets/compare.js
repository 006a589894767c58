// Draws any experiments' held-out bits per byte, and their differences, in place of a fixed picture.
(() => {
  const data = window.grugCompare;
  const place = document.querySelector(".grug-compare");
  if (!data || !place || !window.uPlot) return;

  const AXES = { tokens: 1, FLOPs: 3, time: 2 };
  const UNITS = { tokens: "tokens", FLOPs: "FLOPs", time: "seconds of training" };
  const TONES = 8;
  const byName = new Map(data.experiments.map((one) => [one.name, one]));
  const address = new URLSearchParams(location.search);
  const wanted = (address.get("show") ?? "").split(",").filter((name) => byName.has(name));
  const names = [...byName.keys()];
  const fallback = [names[0], ...names.slice(1).slice(-3)];
  // One alone is shown beside its origin.
  if (wanted.length === 1 && byName.has(byName.get(wanted[0]).origin)) wanted.unshift(byName.get(wanted[0]).origin);
  const shown = new Set(wanted.length ? wanted : fallback);

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const short = (value) => {
    if (value == null) return "";
    for (const [size, letter] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)}${letter}`;
    return `${+value.toPrecision(3)}`;
  };
  const select = (values, value) => {
    const field = make("select");
    field.append(...values.map((name) => new Option(name, name, false, name === value)));
    return field;
  };
  const tick = (value) => make("input", { type: "checkbox", checked: value });

  const x = select(Object.keys(AXES), address.get("x") ?? "tokens");
  const logX = tick(address.get("logx"));
  const logY = tick(address.get("logy"));
  const from = select(["its origin", ...names], address.get("from") ?? "its origin");
  const words = make("input", { type: "search", placeholder: "filter" });
  words.setAttribute("aria-label", "Filter the experiments");

  const boxes = names.map((name) => {
    const box = tick(shown.has(name));
    const label = make("label", {}, box, ` ${name}`);
    box.addEventListener("input", () => {
      if (box.checked) shown.add(name);
      else shown.delete(name);
      draw();
    });
    return label;
  });
  words.addEventListener("input", () => {
    const part = words.value.toLowerCase();
    boxes.forEach((label) => { label.hidden = !label.textContent.toLowerCase().includes(part); });
  });

  const list = make("div", { className: "grug-choices", tabIndex: 0 }, ...boxes);
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", "Experiments");
  const panels = make("div", { className: "grug-panels" });
  const table = make("table", { className: "grug-index grug-ends" });
  place.replaceChildren(
    make("div", { className: "grug-filters" },
      make("label", {}, "Over ", x),
      make("label", {}, logX, " log across"),
      make("label", {}, logY, " log upwards"),
      make("label", {}, "Differences from ", from)),
    make("div", { className: "grug-picker" }, words, list),
    panels,
    make("div", { className: "grug-scroll" }, table),
  );
  for (const field of [x, logX, logY, from]) field.addEventListener("input", () => draw());

  const line = (one) => one.curve.map((row) => [row[AXES[x.value]], row[4]]).filter(([at]) => at > 0);
  const at = (points, where) => {
    const after = points.findIndex(([place]) => place >= where);
    if (after < 0 || (after === 0 && points[0][0] > where)) return null;
    if (points[after][0] === where) return points[after][1];
    const [[left, low], [right, high]] = [points[after - 1], points[after]];
    return low + ((high - low) * (where - left)) / (right - left);
  };
  const reference = (one) => byName.get(from.value === "its origin" ? one.origin : from.value);
  const apart = (one) => {
    const other = reference(one);
    if (!other || other === one) return [];
    const theirs = line(other);
    return line(one)
      .map(([where, value]) => [where, at(theirs, where), value])
      .filter(([, base]) => base !== null)
      .map(([where, base, value]) => [where, value - base]);
  };

  const style = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
  const panel = (label) => {
    const holder = make("figure", { className: "grug-panel" }, make("figcaption", {}, label));
    panels.append(holder);
    return [holder, label];
  };
  const plot = ([holder, label], ones, points, log) => {
    const drawn = ones.map((one) => [one, points(one)]).filter(([, found]) => found.length);
    if (!drawn.length) return void holder.append(make("p", {}, "Nothing to draw: choose an experiment that has an origin with runs, or another to differ from."));
    const ink = style("--md-default-fg-color");
    const grid = { stroke: style("--md-default-fg-color--lightest"), width: 1 };
    const values = (_, all) => all.map(short);
    const series = drawn.map(([one]) => {
      const place = ones.indexOf(one);
      return {
        label: one.name,
        stroke: style(`--grug-tone-${place % TONES}`),
        width: 2,
        dash: place >= TONES ? [6, 4] : undefined,
        spanGaps: true,
        value: (_, value) => (value == null ? "–" : value.toFixed(4)),
      };
    });
    const joined = uPlot.join(drawn.map(([, found]) => [found.map((p) => p[0]), found.map((p) => p[1])]));
    new uPlot(
      {
        width: holder.clientWidth,
        height: 320,
        scales: { x: { time: false, distr: logX.checked ? 3 : 1 }, y: { distr: log ? 3 : 1 } },
        axes: [
          { stroke: ink, grid, ticks: grid, values, label: UNITS[x.value], labelSize: 22, space: 70 },
          { stroke: ink, grid, ticks: grid, values: (_, all) => all.map((v) => (v == null ? "" : +v.toPrecision(4))), size: 62 },
        ],
        series: [{ label: UNITS[x.value], value: (_, value) => (value == null ? "–" : short(value)) }, ...series],
      },
      joined,
      holder,
    );
    const canvas = holder.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${label}: ${drawn.map(([one]) => one.name).join(", ")}; the table below has the ends`);
  };

  const ends = (ones) => {
    const head = ["Experiment", "Status", "Seeds", "Steps", "Tokens", "Bits per byte", "Difference", "Run on"];
    const rows = ones.map((one) => {
      const [step, tokens, , , bpb] = one.curve[one.curve.length - 1];
      const last = apart(one).at(-1);
      const name = make("a", { href: `variants/${one.name}.html` }, one.name);
      const cells = [name, one.status, `${one.seeds}`, `${step}`, short(tokens), bpb.toFixed(4), last ? last[1].toFixed(4).replace("-", "−") : "", one.budget];
      return make("tr", {}, ...cells.map((cell, n) => {
        const made = make("td", {}, cell);
        made.dataset.label = head[n];
        return made;
      }));
    });
    const heads = head.map((name) => make("th", { scope: "col" }, name));
    table.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  };

  const draw = () => {
    const ones = data.experiments.filter((one) => shown.has(one.name));
    panels.replaceChildren();
    const origin = from.value === "its origin" ? "each one's origin" : from.value;
    // Both at first: a plot is as wide as its place.
    const [values, differences] = [
      panel("Held-out bits per byte"),
      panel(`Difference from ${origin}: below zero is better`),
    ];
    plot(values, ones, line, logY.checked);
    plot(differences, ones, apart, false);
    ends(ones);
    const state = { show: [...shown].join(","), x: x.value, logx: logX.checked ? "1" : "", logy: logY.checked ? "1" : "", from: from.value };
    const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
    history.replaceState(null, "", `${location.pathname}?${query}`);
  };
  draw();

  let width = panels.clientWidth;
  new ResizeObserver(() => {
    if (panels.clientWidth === width) return;
    width = panels.clientWidth;
    draw();
  }).observe(panels);
  // The palette's switch changes what the plots are drawn in.
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
})();
