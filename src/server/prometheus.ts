import type { CacheStatus } from "../telemetry/cache_status.ts";
import type { CacheEvent, CacheEvents } from "../telemetry/events.ts";
import {
  CALL_DURATION,
  type Metric,
  type MetricLabels,
  METRICS,
  type MetricSource,
} from "../telemetry/metric_table.ts";

/** Value of `Content-Type` of the text format. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Maximum number of series; those of removed adapters end when the page is read. */
const MAX_SERIES = 1024;

const UNITS: Readonly<Record<string, string>> = { By: "_bytes", s: "_seconds" };

/** Name of a metric in Prometheus. */
export function prometheusName(
  { name, kind, unit }: Pick<Metric, "name" | "unit"> & { readonly kind: string },
): string {
  const base = name.replaceAll(".", "_") + (UNITS[unit] ?? "");
  return kind === "counter" ? `${base}_total` : base;
}

/** Metrics as a page in the text format of Prometheus. */
export function prometheusText(source: MetricSource, durations: CallDurations): string {
  const lines: string[] = [];
  for (const metric of METRICS) {
    const name = prometheusName(metric);
    const points = [...metric.read(source)];
    if (points.length === 0) continue;
    lines.push(`# HELP ${name} ${metric.description}`, `# TYPE ${name} ${metric.kind}`);
    for (const { labels, value } of points) lines.push(`${name}${labelsText(labels)} ${value}`);
  }
  lines.push(...durations.lines(source.status));
  return `${lines.join("\n")}\n`;
}

/** Durations with the same labels. */
interface Series {
  readonly labels: MetricLabels;
  /** Calls in each bucket; the last one has no upper bound. */
  readonly counts: number[];
  sum: number;
}

/** The histogram of the durations of adapter calls, from when it is created to its disposal. */
export class CallDurations implements Disposable {
  readonly #series = new Map<string, Series>();
  readonly #ignore: () => void;

  constructor(events: CacheEvents) {
    const onCalled = ({ detail }: CacheEvent<"called">): void => {
      const { adapter, operation, outcome, durationMs } = detail;
      const labels = { adapter: String(adapter.id), type: adapter.type, operation, outcome };
      this.#add(labels, durationMs);
    };
    events.addEventListener("called", onCalled);
    this.#ignore = () => events.removeEventListener("called", onCalled);
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    this.#ignore();
  }

  /** Lines in the text format of Prometheus, for the adapters that a cache still has. */
  lines({ adapters }: CacheStatus): string[] {
    const ids = new Set(adapters.map(({ id }) => String(id)));
    for (const [name, { labels }] of this.#series) {
      if (!ids.has(labels.adapter ?? "")) this.#series.delete(name);
    }
    if (this.#series.size === 0) return [];
    const name = prometheusName(CALL_DURATION);
    const lines = [`# HELP ${name} ${CALL_DURATION.description}`, `# TYPE ${name} histogram`];
    for (const { labels, counts, sum } of this.#series.values()) {
      let below = 0;
      for (const [i, count] of counts.entries()) {
        below += count;
        const le = String(CALL_DURATION.bounds[i] ?? "+Inf");
        lines.push(`${name}_bucket${labelsText({ ...labels, le })} ${below}`);
      }
      lines.push(`${name}_sum${labelsText(labels)} ${sum}`);
      lines.push(`${name}_count${labelsText(labels)} ${below}`);
    }
    return lines;
  }

  #add(labels: MetricLabels, durationMs: number): void {
    const seconds = durationMs / 1000;
    const name = Object.values(labels).join(" ");
    let series = this.#series.get(name);
    if (series === undefined) {
      if (this.#series.size >= MAX_SERIES) return;
      const counts = new Array<number>(CALL_DURATION.bounds.length + 1).fill(0);
      this.#series.set(name, series = { labels, counts, sum: 0 });
    }
    const bucket = CALL_DURATION.bounds.findIndex((bound) => seconds <= bound);
    const index = bucket < 0 ? series.counts.length - 1 : bucket;
    series.counts[index] = (series.counts[index] ?? 0) + 1;
    series.sum += seconds;
  }
}

function labelsText(labels: MetricLabels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}
