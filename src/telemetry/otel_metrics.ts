import {
  type BatchObservableResult,
  createNoopMeter,
  type Meter,
  metrics,
  type Observable,
} from "@opentelemetry/api";
import type { CacheStatus } from "./cache_status.ts";
import type { CacheEvent, CacheEvents } from "./events.ts";
import { CALL_DURATION, type Metric, METRICS, type MetricSource } from "./metric_table.ts";

/** What is measured. */
export interface MeasuredCache {
  readonly events: CacheEvents;
  reportStatus(): CacheStatus;
  /** Bytes in L1 by cache salt; `undefined` unless salts are to be a label. */
  usageBySalt(): ReadonlyMap<string, number> | undefined;
}

/** Number of the next cache; a label tells the caches of a process apart. */
let nextCache = 0;

/**
 * Reports the metrics of a cache to the meter provider of the process. Counters are read when they
 * are collected. Without a provider it does nothing, then and later.
 *
 * @returns A function that ends it. The final values are collected once more.
 */
export function reportToOpenTelemetry(cache: MeasuredCache): () => void {
  const meter = metrics.getMeter("kvtier");
  if (meter === createNoopMeter()) return () => {};
  const label = { cache: String(nextCache++) };
  const { name, unit, description, bounds } = CALL_DURATION;
  const advice = { explicitBucketBoundaries: [...bounds] };
  const durations = meter.createHistogram(name, { unit, description, advice });
  const onCalled = ({ detail }: CacheEvent<"called">): void => {
    const { adapter, operation, outcome, durationMs } = detail;
    const labels = { ...label, adapter: String(adapter.id), type: adapter.type };
    durations.record(durationMs / 1000, { ...labels, operation, outcome });
  };
  cache.events.addEventListener("called", onCalled);

  const instruments = METRICS.map((metric) => ({
    metric,
    instrument: createInstrument(meter, metric),
  }));
  const observables = instruments.map(({ instrument }) => instrument);
  let final: MetricSource | undefined;
  const observe = (result: BatchObservableResult): void => {
    const source = final ?? sourceOf(cache);
    for (const { metric, instrument } of instruments) {
      for (const { labels, value } of metric.read(source)) {
        result.observe(instrument, value, { ...label, ...labels });
      }
    }
    if (final === undefined) return;
    queueMicrotask(() => meter.removeBatchObservableCallback(observe, observables));
  };
  meter.addBatchObservableCallback(observe, observables);
  return () => {
    final ??= sourceOf(cache);
    cache.events.removeEventListener("called", onCalled);
  };
}

function sourceOf(cache: MeasuredCache): MetricSource {
  return { status: cache.reportStatus(), salts: cache.usageBySalt() };
}

function createInstrument(meter: Meter, { name, kind, unit, description }: Metric): Observable {
  const options = { unit, description };
  return kind === "counter"
    ? meter.createObservableCounter(name, options)
    : meter.createObservableGauge(name, options);
}
