import { MISS_REASONS } from "../prefetch/miss_reason.ts";
import type { CircuitName } from "../l2/adapter_status.ts";
import type { CircuitState } from "../l2/circuit_breaker.ts";
import { fillOf } from "./adapter_fill.ts";
import type { CacheStatus } from "./cache_status.ts";

/** Labels of a value, by name. */
export type MetricLabels = Readonly<Record<string, string>>;

/** One value of a metric. */
export interface MetricPoint {
  readonly labels: MetricLabels;
  readonly value: number;
}

/** What metrics are read from. */
export interface MetricSource {
  readonly status: CacheStatus;
  /** Bytes in L1 by cache salt; `undefined` unless salts are to be a label. */
  readonly salts: ReadonlyMap<string, number> | undefined;
}

/** A metric that is read from the status when it is collected. */
export interface Metric {
  /** Name in OpenTelemetry. */
  readonly name: string;
  readonly kind: "counter" | "gauge";
  /** Unit in UCUM: `By`, `s`, `1`, or what is counted, in braces. */
  readonly unit: string;
  readonly description: string;
  /** Names of its labels. */
  readonly labels: readonly string[];
  readonly read: (source: MetricSource) => Iterable<MetricPoint>;
}

/** Labels of the metrics of an adapter. */
const ADAPTER = ["adapter", "type"] as const;

/** Values of `kvtier.adapter.circuit`. */
const CIRCUIT_VALUES: Readonly<Record<CircuitState, number>> = {
  closed: 0,
  "half-open": 1,
  open: 2,
};

type Read = (status: CacheStatus) => number;
type Adapter = CacheStatus["adapters"][number];

/** Reads one value without labels. */
function one(read: Read): Pick<Metric, "labels" | "read"> {
  return { labels: [], read: ({ status }) => [{ labels: {}, value: read(status) }] };
}

/** Reads one value for each value of a label. */
function by(label: string, reads: Readonly<Record<string, Read>>): Pick<Metric, "labels" | "read"> {
  const entries = Object.entries(reads);
  return {
    labels: [label],
    read: ({ status }) =>
      entries.map(([name, read]) => ({ labels: { [label]: name }, value: read(status) })),
  };
}

/** Reads one value for each adapter that has it. */
function perAdapter(
  read: (adapter: Adapter, status: CacheStatus) => number | undefined,
): Pick<Metric, "labels" | "read"> {
  return {
    labels: ADAPTER,
    read: ({ status }) =>
      status.adapters.flatMap((adapter) => {
        const value = read(adapter, status);
        return value === undefined ? [] : [{ labels: labelsOf(adapter), value }];
      }),
  };
}

/** Reads one value for each adapter and each value of a label. */
function perAdapterBy(
  label: string,
  read: (adapter: Adapter) => Readonly<Record<string, number>>,
): Pick<Metric, "labels" | "read"> {
  return {
    labels: [...ADAPTER, label],
    read: ({ status }) =>
      status.adapters.flatMap((adapter) =>
        Object.entries(read(adapter)).map(([name, value]) => {
          return { labels: { ...labelsOf(adapter), [label]: name }, value };
        })
      ),
  };
}

function labelsOf({ id, type }: Adapter): MetricLabels {
  return { adapter: String(id), type };
}

function counter(
  name: string,
  unit: string,
  description: string,
  values: Pick<Metric, "labels" | "read">,
): Metric {
  return { name: `kvtier.${name}`, kind: "counter", unit, description, ...values };
}

function gauge(...args: Parameters<typeof counter>): Metric {
  return { ...counter(...args), kind: "gauge" };
}

function circuits<T>(adapter: Adapter, read: (name: CircuitName) => T): Record<string, T> {
  return Object.fromEntries(
    Object.keys(adapter.circuits).map((name) => [name, read(name as CircuitName)]),
  );
}

/** The eviction status of an adapter. */
function evictionOf({ id }: Adapter, { eviction }: CacheStatus) {
  return eviction.adapters.find((each) => each.id === id);
}

/**
 * Every metric but the histogram, once: OpenTelemetry, the Prometheus page and `docs/metrics.md` all
 * follow this table.
 */
export const METRICS: readonly Metric[] = [
  gauge(
    "problems",
    "{problem}",
    "Current problems; 0 for a healthy cache",
    one(({ problems }) => problems.length),
  ),
  gauge(
    "device.lost",
    "1",
    "1 while the device is lost, otherwise 0",
    one(({ device }) => Number(device.isLost)),
  ),
  counter(
    "lookup.requests",
    "{request}",
    "Requests for a prefix",
    one(({ prefetch }) => prefetch.requests),
  ),
  counter(
    "lookup.objects",
    "{object}",
    "Objects requested",
    one(({ prefetch }) => prefetch.requestedObjects),
  ),
  counter(
    "lookup.hits",
    "{object}",
    "Objects served, by the tier that had them",
    by("tier", {
      l1: ({ prefetch }) => prefetch.l1Objects,
      l2: ({ prefetch }) => prefetch.l2Objects,
    }),
  ),
  counter(
    "lookup.misses",
    "{request}",
    "Requests that did not get the whole prefix, by the reason of the first missing chunk",
    by(
      "reason",
      Object.fromEntries(
        MISS_REASONS.map((reason): [string, Read] => [
          reason,
          ({ prefetch }) => prefetch.misses[reason],
        ]),
      ),
    ),
  ),
  counter(
    "lookup.deadlines",
    "{request}",
    "Requests answered at their deadline",
    one(({ prefetch }) => prefetch.deadlines),
  ),
  counter(
    "lookup.decisions",
    "{decision}",
    "Decisions to compute what adapters have rather than to load it, and explorations of their speed",
    by("kind", {
      shortened: ({ prefetch }) => prefetch.decisions.shortenedLoads,
      computed: ({ prefetch }) => prefetch.decisions.computedInstead,
      wrong: ({ prefetch }) => prefetch.decisions.wrongGuesses,
      explored: ({ prefetch }) => prefetch.decisions.explorations,
    }),
  ),
  counter(
    "lookup.shared_loads",
    "{object}",
    "Objects that waited for the load of another request",
    one(({ prefetch }) => prefetch.sharedLoads),
  ),
  gauge(
    "lookup.open",
    "{request}",
    "Requests by state: queued, active, or answered and draining",
    by("state", {
      queued: ({ prefetch }) => prefetch.queuedRequests,
      active: ({ prefetch }) => prefetch.activeRequests,
      draining: ({ prefetch }) => prefetch.drainingRequests,
    }),
  ),
  gauge(
    "l1.capacity",
    "By",
    "Device memory that objects may occupy",
    one(({ l1 }) => l1.capacityBytes),
  ),
  gauge("l1.used", "By", "Device memory that objects occupy", one(({ l1 }) => l1.usedBytes)),
  gauge(
    "l1.dirty",
    "By",
    "Bytes in device memory that are not in every chosen adapter yet",
    one(({ l1 }) => l1.heldBytes),
  ),
  gauge("l1.objects", "{object}", "Objects in device memory", one(({ l1 }) => l1.totalObjectCount)),
  gauge(
    "l1.leased",
    "{object}",
    "Objects in device memory that a hit leases",
    one(({ l1 }) => l1.readLockedCount),
  ),
  counter(
    "l1.io",
    "By",
    "Bytes written to device memory by engines, and served to them",
    by("direction", {
      write: ({ l1 }) => l1.writtenBytes,
      read: ({ prefetch }) => prefetch.servedBytes,
    }),
  ),
  counter(
    "l1.evictions",
    "{object}",
    "Objects evicted from device memory",
    one(({ l1 }) => l1.evictedCount),
  ),
  counter("l1.skips", "{object}", "Objects that engines wrote and device memory rejected", {
    labels: ["reason"],
    read: ({ status }) =>
      Object.entries(status.skippedWrites).map(([reason, value]) => ({
        labels: { reason },
        value,
      })),
  }),
  gauge("l1.salt.used", "By", "Device memory by cache salt; only if salts are to be a label", {
    labels: ["salt"],
    read: ({ salts = new Map() }) =>
      salts.entries().map(([salt, value]) => ({ labels: { salt }, value })),
  }),
  gauge(
    "l1.salts",
    "{salt}",
    "Cache salts with objects in device memory",
    one(({ usage }) => usage.saltCount),
  ),
  gauge(
    "l1.models",
    "{model}",
    "Models with objects in device memory",
    one(({ usage }) => usage.modelCount),
  ),
  gauge(
    "lifecycle.keys",
    "{key}",
    "Keys by state: pinned, or with a time to live",
    by("state", {
      pinned: ({ lifecycle }) => lifecycle.pinned,
      expiring: ({ lifecycle }) => lifecycle.expiring,
    }),
  ),
  gauge(
    "store.queued",
    "By",
    "Bytes that wait to be stored, retries included",
    one(({ store }) => store.pendingBytes),
  ),
  gauge(
    "store.in_flight",
    "By",
    "Bytes being stored, counted once for each adapter",
    one(({ store }) => store.inFlightBytes),
  ),
  gauge(
    "store.unsaved",
    "{object}",
    "Objects that are not in every chosen adapter yet",
    one(({ store }) => store.unsavedObjects),
  ),
  counter(
    "store.retries",
    "{object}",
    "Further attempts to store, counted for each adapter",
    one(({ store }) => store.retriedObjects),
  ),
  counter(
    "store.drops",
    "{object}",
    "Objects that an adapter did not get, by reason",
    by("reason", {
      dropped: ({ store }) => store.droppedObjects,
      failed: ({ store }) => store.failedObjects,
      lost: ({ store }) => store.lostObjects,
      "first-touch": ({ store }) => store.refusedObjects["first-touch"],
      "bytes-per-day": ({ store }) => store.refusedObjects["bytes-per-day"],
    }),
  ),
  gauge(
    "load.in_flight",
    "By",
    "Host memory in use by loads",
    one(({ prefetch }) => prefetch.loadBytesInUse),
  ),
  counter(
    "event_loop.blocked",
    "s",
    "Time that read-backs may have blocked the event loop",
    one(({ store }) => store.readBackMs / 1000),
  ),
  gauge(
    "adapter.used",
    "By",
    "Bytes in an adapter, if it reports them",
    perAdapter(({ details }) => fillOf(details).usedBytes),
  ),
  gauge(
    "adapter.capacity",
    "By",
    "Capacity of an adapter, if it has one",
    perAdapter(({ details }) => fillOf(details).capacityBytes),
  ),
  counter(
    "adapter.io",
    "By",
    "Bytes stored in an adapter, and loaded from it and verified",
    perAdapterBy(
      "direction",
      ({ storedBytes, loadedBytes }) => ({ write: storedBytes, read: loadedBytes }),
    ),
  ),
  counter(
    "adapter.stores",
    "{object}",
    "Objects given to an adapter, by outcome",
    perAdapterBy(
      "outcome",
      ({ storedObjects, failedStores }) => ({ stored: storedObjects, failed: failedStores }),
    ),
  ),
  counter(
    "adapter.lookups",
    "{object}",
    "Objects looked up in an adapter, by outcome",
    perAdapterBy(
      "outcome",
      ({ lookedUpKeys, foundKeys }) => ({ found: foundKeys, absent: lookedUpKeys - foundKeys }),
    ),
  ),
  counter(
    "adapter.loads",
    "{object}",
    "Objects requested from an adapter, by outcome",
    perAdapterBy(
      "outcome",
      ({ loadedObjects, missedLoads }) => ({ loaded: loadedObjects, missed: missedLoads }),
    ),
  ),
  counter(
    "adapter.damage",
    "{object}",
    "Loaded objects that failed verification, by fault",
    perAdapterBy("fault", ({ damagedObjects }) => damagedObjects),
  ),
  counter(
    "adapter.failures",
    "{call}",
    "Failed calls: missed deadlines, and other errors",
    perAdapterBy(
      "reason",
      ({ failedCalls, timeouts }) => ({ timeout: timeouts, error: failedCalls - timeouts }),
    ),
  ),
  counter(
    "adapter.skips",
    "{call}",
    "Calls skipped because an adapter was paused or closed",
    perAdapter(({ skippedCalls }) => skippedCalls),
  ),
  gauge(
    "adapter.calls",
    "{call}",
    "Calls in progress: within their deadline, or hanging",
    perAdapterBy(
      "state",
      ({ callsInFlight, hungCalls }) => ({ running: callsInFlight, hanging: hungCalls }),
    ),
  ),
  gauge(
    "adapter.circuit",
    "1",
    "State of a circuit: 0 closed, 1 half-open, 2 open",
    perAdapterBy(
      "operation",
      (adapter) => circuits(adapter, (name) => CIRCUIT_VALUES[adapter.circuits[name].state]),
    ),
  ),
  counter(
    "adapter.circuit_opens",
    "{time}",
    "Times that a circuit opened",
    perAdapterBy(
      "operation",
      (adapter) => circuits(adapter, (name) => adapter.circuits[name].openCount),
    ),
  ),
  counter(
    "adapter.evictions",
    "{object}",
    "Objects that the cache evicted from an adapter",
    perAdapter((adapter, status) => evictionOf(adapter, status)?.evictedObjects),
  ),
  counter(
    "adapter.evicted",
    "By",
    "Bytes that the cache evicted from an adapter",
    perAdapter((adapter, status) => evictionOf(adapter, status)?.evictedBytes),
  ),
];

/** The metric that is recorded when a call of an adapter ends. */
export const CALL_DURATION = {
  name: "kvtier.adapter.duration",
  kind: "histogram",
  unit: "s",
  description: "Duration of adapter calls",
  labels: [...ADAPTER, "operation", "outcome"],
  /** Upper bounds of the buckets. */
  bounds: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
} as const;
