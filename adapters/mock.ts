/**
 * The `mock` adapter: host memory with a limited bandwidth, for tests and demonstrations.
 *
 * @module
 */
import { GIB } from "../src/base/units.ts";
import { defineL2Adapter, type L2AdapterModule } from "../src/adapter/contract.ts";
import { withLatency } from "../src/adapter/with_latency.ts";
import { wrapAdapter } from "../src/adapter/wrap_adapter.ts";
import { openMemory } from "./_shared/memory_adapter.ts";

const config = {
  max_size_gb: {
    type: "number",
    required: true,
    exclusiveMinimum: 0,
    help: "Max GiB of objects; the least recently used ones that are not locked are evicted first.",
  },
  mock_bandwidth_gb: {
    type: "number",
    required: true,
    exclusiveMinimum: 0,
    help: "Bandwidth of stores and loads, in GiB/s.",
  },
} as const;

/** Objects in host memory, with a limited bandwidth. */
const mock: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "mock",
  summary: "Host memory with a limited bandwidth, for tests and demonstrations.",
  config,
  capabilities: { evicts: true },
  create({ max_size_gb: capacity, mock_bandwidth_gb: bandwidth }, environment) {
    const capacityBytes = Math.floor(capacity * GIB);
    const bounds = { capacityBytes, watermark: { high: 1, low: 1 } };
    const memory = openMemory("mock", bounds, environment);
    const { clock } = environment;
    return wrapAdapter(withLatency(memory, { bandwidth: bandwidth * GIB, clock }), {
      capabilities: { evicts: true, acceptsShortObjects: true },
      reportStatus() {
        const { storedObjects, lockedObjects, usedBytes } = memory.reportStatus?.() ?? {};
        return {
          storedObjectCount: storedObjects,
          lockedKeyCount: lockedObjects,
          currentSizeBytes: usedBytes,
          maxCapacityBytes: capacityBytes,
        };
      },
    });
  },
});
export default mock;
