/**
 * The `dram` adapter: objects in host memory.
 *
 * @module
 */
import { GIB, MAX_GIB } from "../src/base/units.ts";
import {
  defineL2Adapter,
  evictionField,
  type L2AdapterModule,
  policyOf,
  watermarksOf,
} from "../src/adapter/contract.ts";
import { openMemory } from "./_shared/memory_adapter.ts";

const config = {
  max_capacity_gb: {
    type: "number",
    exclusiveMinimum: 0,
    maximum: MAX_GIB,
    default: 1,
    help: "Max GiB of objects; `eviction_policy` says which are evicted first. Locked ones stay.",
  },
  eviction: {
    ...evictionField,
    fields: {
      ...evictionField.fields,
      eviction_policy: { ...evictionField.fields.eviction_policy, default: "LFU_AGED" },
    },
    help: "When to evict. Default: only when a store needs room, and only as much as it needs.",
  },
} as const;

/** Objects in host memory, which are lost when the process ends. */
const dram: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "dram",
  summary: "Objects in host memory, which are lost when the process ends.",
  config,
  capabilities: { evicts: true },
  create({ max_capacity_gb: gib, eviction }, environment) {
    const capacityBytes = Math.floor(gib * GIB);
    const watermark = eviction === undefined ? { high: 1, low: 1 } : watermarksOf(eviction);
    const bounds = {
      capacityBytes,
      watermark,
      policy: policyOf(eviction ?? { "eviction_policy": "LFU_AGED" }),
    };
    return openMemory("dram", bounds, environment);
  },
});
export default dram;
