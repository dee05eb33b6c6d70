import { type MeterProvider, metrics } from "@opentelemetry/api";
import { HostDevice } from "../../src/memory/host_device.ts";
import { serveStatus } from "../../src/server/status_server.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { put } from "../support/caches.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { type Row, time } from "./rows.ts";
import { median } from "./statistics.ts";

const OBJECTS = 8;
const LAYOUT = testLayout(4096);

/** What metrics cost a small match whose objects an adapter in host memory loads. */
export async function benchMetrics(): Promise<Row[]> {
  const readers: readonly [name: string, open: () => Promise<TieredCache>][] = [
    ["no reader of metrics", openCache],
    ["OpenTelemetry", openMeasured],
    ["status server", openCache],
  ];
  const caches = await Promise.all(readers.map(([, open]) => open()));
  await using _server = serveStatus(caches[2] as TieredCache, { port: 0 });
  const times: number[][] = readers.map(() => []);
  // In turns, so that what else the machine does concerns all of them.
  for (let round = 0; round < 300; round++) {
    for (const [i, cache] of caches.entries()) {
      cache.clearL1();
      times[i]?.push(
        await time(async () => {
          using _hit = await cache.match(testKeys(OBJECTS), LAYOUT);
        }),
      );
    }
  }
  for (const cache of caches) await cache.close();
  return readers.map(([name], i) => ({
    device: "host memory",
    operation: `match and load ${OBJECTS}, ${name}`,
    objectBytes: LAYOUT.byteLength,
    medianMs: median(times[i] ?? []),
  }));
}

async function openCache(): Promise<TieredCache> {
  const cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    l2: [{ type: "dram", "max_capacity_gb": 0.01 }],
  });
  put(cache, testKeys(OBJECTS), LAYOUT);
  await cache.flush();
  return cache;
}

/** A cache that records into a histogram, the only instrument that costs anything between exports. */
async function openMeasured(): Promise<TieredCache> {
  const recorded = new Map<string, number>();
  const instrument = {
    record: (value: number, labels: object) => {
      const name = JSON.stringify(labels);
      recorded.set(name, (recorded.get(name) ?? 0) + value);
    },
  };
  const meter = new Proxy({}, { get: () => () => instrument });
  const provider = { getMeter: () => meter } as unknown as MeterProvider;
  metrics.setGlobalMeterProvider(provider);
  try {
    return await openCache();
  } finally {
    metrics.disable();
  }
}
