// Writes the table of metrics into docs/metrics.md.
import { prometheusName } from "../src/server/prometheus.ts";
import { CALL_DURATION, METRICS } from "../src/telemetry/metric_table.ts";

/** The page with the table. */
export const page = new URL("../docs/metrics.md", import.meta.url);

const HEADER = ["OpenTelemetry", "Prometheus", "Kind", "Unit", "Labels", "Meaning"];
const BLOCK = /(<!-- the table of metrics -->\n)[^]*?(<!-- end -->)/;

/** The page with the table as it is now. */
export function withMetrics(text: string): string {
  const rows = [...METRICS, CALL_DURATION].map((metric) => [
    `\`${metric.name}\``,
    `\`${prometheusName(metric)}\``,
    metric.kind,
    `\`${metric.unit}\``,
    metric.labels.map((label) => `\`${label}\``).join(", "),
    metric.description,
  ]);
  const widths = HEADER.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0))
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  const rule = line(widths.map((width) => "-".repeat(width)));
  const table = [line(HEADER), rule, ...rows.map(line)].join("\n");
  return text.replace(BLOCK, (_, start, end) => `${start}\n${table}\n\n${end}`);
}

if (import.meta.main) await Deno.writeTextFile(page, withMetrics(await Deno.readTextFile(page)));
