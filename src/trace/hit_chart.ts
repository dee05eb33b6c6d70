/** One line of a chart: hit ratios by capacity, from 0 to 1. */
export interface ChartLine {
  readonly name: string;
  /** Whether it is a bound, which is drawn dashed. */
  readonly isBound: boolean;
  readonly points: readonly { readonly capacity: number; readonly ratio: number }[];
}

const WIDTH = 720;
const HEIGHT = 400;
const PLOT = { left: 56, right: 570, top: 48, bottom: 340 } as const;
/** Colours of the lines, legible on light and dark ground. */
const COLOURS = ["#2f7ed8", "#d9730d", "#2e9e5b", "#c2439b", "#8a63d2", "#a08a00"];
const MAX_TICKS = 8;

/** Draws hit ratios over capacities, on a logarithmic axis, as an SVG file for light and dark. */
export function hitChart(title: string, lines: readonly ChartLine[]): string {
  const capacities = [...new Set(lines.flatMap(({ points }) => points.map((p) => p.capacity)))]
    .sort((a, b) => a - b);
  const [least = 1, most = least] = [capacities[0], capacities.at(-1)];
  const highest = Math.max(0.05, ...lines.flatMap(({ points }) => points.map((p) => p.ratio)));
  const top = Math.min(1, Math.ceil(highest * 20) / 20);
  const span = Math.log(most) - Math.log(least);
  const x = (capacity: number): number =>
    span === 0
      ? (PLOT.left + PLOT.right) / 2
      : PLOT.left + (Math.log(capacity) - Math.log(least)) / span * (PLOT.right - PLOT.left);
  const y = (ratio: number): number => PLOT.bottom - ratio / top * (PLOT.bottom - PLOT.top);
  const step = Math.ceil(capacities.length / MAX_TICKS);
  const parts = [
    `<text class="t" x="${PLOT.left}" y="26">${escaped(title)}</text>`,
    ...[0, 1, 2, 3, 4, 5].flatMap((n) => {
      const ratio = top * n / 5;
      return [
        `<path class="g" d="M${PLOT.left} ${at(y(ratio))}H${PLOT.right}"/>`,
        `<text class="e" x="${PLOT.left - 8}" y="${at(y(ratio) + 4)}">` +
        `${Math.round(ratio * 100)} %</text>`,
      ];
    }),
    ...capacities.filter((_, i) => i % step === 0).map((capacity) =>
      `<text class="m" x="${at(x(capacity))}" y="${PLOT.bottom + 20}">${grouped(capacity)}</text>`
    ),
    `<text class="m" x="${(PLOT.left + PLOT.right) / 2}" y="${PLOT.bottom + 44}">` +
    "capacity in blocks</text>",
    ...lines.flatMap((line, i) => drawn(line, i, x, y)),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">`,
    `<title>${escaped(title)}</title>`,
    "<style>",
    "svg{background:#fff}text{font:12px sans-serif;fill:#24292f}.t{font-size:15px;font-weight:600}",
    ".e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#d0d7de;fill:none}",
    "@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.g{stroke:#30363d}}",
    "</style>",
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

function drawn(
  { name, points, isBound }: ChartLine,
  index: number,
  x: (capacity: number) => number,
  y: (ratio: number) => number,
): string[] {
  const colour = COLOURS[index % COLOURS.length];
  const path = points.map(({ capacity, ratio }) => `${at(x(capacity))} ${at(y(ratio))}`).join("L");
  const dash = isBound ? ' stroke-dasharray="5 4"' : "";
  const row = PLOT.top + 8 + 22 * index;
  return [
    `<path d="M${path}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>`,
    ...points.map(({ capacity, ratio }) =>
      `<circle cx="${at(x(capacity))}" cy="${at(y(ratio))}" r="3" fill="${colour}"/>`
    ),
    `<path d="M${PLOT.right + 20} ${row}h24" stroke="${colour}" stroke-width="2"${dash}/>`,
    `<text x="${PLOT.right + 52}" y="${row + 4}">${escaped(name)}</text>`,
  ];
}

function at(value: number): string {
  return value.toFixed(1);
}

function grouped(count: number): string {
  return count.toLocaleString("en-US");
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
