/** Script of the live page: charts of what changed over time. */
export const CHARTS_SCRIPT: string = String.raw`
const BIN_MS = 5000;
const BINS = 60;
let bins = [];
let lastSample;

const readCounters = ({ l1, prefetch, adapters }) => ({
  requested: prefetch.requestedObjects, l1: prefetch.l1Objects, l2: prefetch.l2Objects,
  misses: prefetch.misses,
  l1Write: l1.writtenBytes, l1Read: prefetch.servedBytes,
  l2Write: adapters.reduce((sum, each) => sum + each.storedBytes, 0),
  l2Read: adapters.reduce((sum, each) => sum + each.loadedBytes, 0),
});
const rise = (now, before) => now >= before ? now - before : now;

// Adds what has happened since the last sample to the bin of now.
const addSample = (at, status) => {
  const sample = readCounters(status);
  const before = lastSample;
  lastSample = sample;
  const start = Math.floor(at / BIN_MS) * BIN_MS;
  let bin = bins[bins.length - 1];
  if (bin === undefined || bin.start < start) {
    bin = { start, requested: 0, l1: 0, l2: 0, l1Write: 0, l1Read: 0, l2Write: 0, l2Read: 0, misses: {} };
    bins = [...bins, bin].slice(-BINS);
  }
  if (before === undefined) return;
  for (const key of ["requested", "l1", "l2", "l1Write", "l1Read", "l2Write", "l2Read"]) bin[key] += rise(sample[key], before[key]);
  for (const [reason, total] of Object.entries(sample.misses)) {
    bin.misses[reason] = (bin.misses[reason] || 0) + rise(total, before.misses[reason] || 0);
  }
};

const SVG = "http://www.w3.org/2000/svg";
const svg = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const frames = new Map();

// A figure: title, plot, times, legend. What changes is replaced.
const frameOf = (id, title) => {
  let frame = frames.get(id);
  if (frame === undefined) {
    const plot = el("div", { class: "plot" });
    const times = el("div", { class: "times", "aria-hidden": "true" }, el("span", { text: "5 min ago" }), el("span", { text: "now" }));
    const legend = el("ul", { class: "legend" });
    $(id).append(el("figcaption", {}, el("h2", { text: title })), plot, times, legend);
    frames.set(id, frame = { plot, legend });
  }
  return frame;
};

// Draws series over the bins, stacked or as lines. A value of undefined is a gap.
const draw = (id, title, series, { stacked, max, format, none }) => {
  const { plot, legend } = frameOf(id, title);
  const end = Math.floor(Date.now() / BIN_MS) * BIN_MS;
  const known = new Map(bins.map((bin) => [bin.start, bin]));
  const slots = Array.from({ length: BINS }, (_, i) => known.get(end - (BINS - 1 - i) * BIN_MS));
  const values = series.map(({ read }) => slots.map((bin) => bin === undefined ? undefined : read(bin)));
  const sums = slots.map((_, i) => stacked
    ? values.reduce((sum, each) => sum + (each[i] || 0), 0)
    : Math.max(...values.map((each) => each[i] || 0)));
  const top = max || Math.max(...sums);
  const picture = svg("svg", { viewBox: "0 0 600 140", preserveAspectRatio: "none", role: "img" });
  const latest = series.map((_, s) => values[s].findLast((value) => value !== undefined));
  const words = series.map(({ name }, s) => name + " " + (latest[s] === undefined ? "unknown" : format(latest[s])));
  picture.setAttribute("aria-label", title + ", latest: " + (words.length === 0 ? none : words.join(", ")));
  const isEmpty = series.length === 0 || !values.flat().some((value) => value > 0);
  for (const y of [35, 70, 105]) picture.append(svg("line", { x1: 0, x2: 600, y1: y, y2: y, stroke: "var(--line)", "vector-effect": "non-scaling-stroke" }));
  const width = 600 / BINS;
  const base = slots.map(() => 0);
  for (const [s, { colour }] of series.entries()) {
    if (isEmpty) break;
    if (stacked) {
      for (const [i, value] of values[s].entries()) {
        if (!(value > 0)) continue;
        const height = 140 * value / top;
        picture.append(svg("rect", { x: i * width + 0.5, width: width - 1, y: 140 - 140 * base[i] / top - height, height, fill: colour }));
        base[i] += value;
      }
      continue;
    }
    let path = "";
    for (const [i, value] of values[s].entries()) {
      if (value === undefined) continue;
      path += (path === "" || values[s][i - 1] === undefined ? "M" : "L") + (i + 0.5) * width + " " + (138 - 136 * value / top);
      // A point of its own is seen, too.
      if (values[s][i - 1] === undefined && values[s][i + 1] === undefined) path += "h0.1";
    }
    picture.append(svg("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke" }));
  }
  plot.replaceChildren(picture, isEmpty ? el("span", { class: "none", text: none }) : el("span", { class: "max", text: format(top) }));
  legend.replaceChildren(...series.map(({ name, colour }, s) => {
    const swatch = el("i", {});
    swatch.style.background = colour;
    return el("li", {}, swatch, name, el("b", { text: latest[s] === undefined ? "—" : format(latest[s]) }));
  }));
};

const share = (bin, part) => bin.requested === 0 ? undefined : part / bin.requested;
const showCharts = (status) => {
  draw("chart-hits", "Hit ratio by tier", [
    { name: "L1", colour: "var(--c0)", read: (bin) => share(bin, bin.l1) },
    { name: "L2", colour: "var(--c1)", read: (bin) => share(bin, bin.l2) },
  ], { stacked: true, max: 1, format: percent, none: bins.some((bin) => bin.requested > 0) ? "No hits" : "No requests yet" });
  const reasons = Object.keys(status.prefetch.misses);
  const seen = reasons.filter((reason) => bins.some((bin) => bin.misses[reason] > 0));
  draw("chart-misses", "Misses by reason", seen.map((reason) => ({
    name: reason, colour: "var(--c" + reasons.indexOf(reason) % 9 + ")", read: (bin) => (bin.misses[reason] || 0) * 1000 / BIN_MS,
  })), { stacked: true, format: (value) => three(value) + "/s", none: "No misses" });
  draw("chart-io", "Throughput", [
    ["L1 written", "c0", "l1Write"], ["L1 served", "c3", "l1Read"], ["L2 stored", "c2", "l2Write"], ["L2 loaded", "c1", "l2Read"],
  ].map(([name, colour, key]) => ({ name, colour: "var(--" + colour + ")", read: (bin) => bin[key] * 1000 / BIN_MS })),
  { stacked: false, format: (value) => bytes(value) + "/s", none: "Nothing moved yet" });
};
`;
