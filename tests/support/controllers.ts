import type { L1Cache } from "../../src/l1/l1_cache.ts";
import type { L2Adapter } from "../../src/adapter/contract.ts";
import { StagingPool } from "../../src/memory/staging_pool.ts";
import type { Clock } from "../../src/base/clock.ts";
import { AdapterSet } from "../../src/l2/adapter_set.ts";
import { defaultStore } from "../../src/store/store_policy.ts";
import { StoreController } from "../../src/store/store_controller.ts";
import type { StoreControllerOptions } from "../../src/store/store_types.ts";
import { guardAll } from "./recording_adapter.ts";

/** Guarded adapters with default deadlines. */
export function adapterSet(adapters: readonly L2Adapter[], clock: Clock): AdapterSet {
  const set = new AdapterSet();
  for (const guard of guardAll(adapters, clock)) set.add(guard);
  return set;
}

/** Host buffers for loads. */
export function scratchPool(
  blockBytes: number,
  blocks: number,
): StagingPool<Uint8Array> {
  return new StagingPool<Uint8Array>({
    blockBytes,
    capacityBytes: blocks * blockBytes,
    create: () => new Uint8Array(blockBytes),
    destroy: () => {},
  });
}

/** A store controller that writes everything to all adapters, with deterministic retries. */
export function storeController(
  options:
    & { l1: L1Cache; adapters: AdapterSet; clock: Clock }
    & Partial<StoreControllerOptions>,
): StoreController {
  return new StoreController({
    policy: defaultStore,
    random: { bytes: (length) => new Uint8Array(length).fill(128) },
    flushBytes: 64 * 1024,
    idleMs: 50,
    maxInFlightBytes: 128 * 2 ** 20,
    maxQueuedBytes: 128 * 2 ** 20,
    whenFull: "drop_new",
    attempts: 3,
    backOffMs: 200,
    watermark: { high: 1, low: 1 },
    ...options,
  });
}
