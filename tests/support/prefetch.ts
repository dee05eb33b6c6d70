import { assertEquals } from "@std/assert";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { L1Cache, L1Lease } from "../../src/l1/l1_cache.ts";
import type { L2Adapter } from "../../src/adapter/contract.ts";
import type { MemoryDevice } from "../../src/memory/memory_device.ts";
import { ForgetBarrier } from "../../src/lifecycle/forget_barrier.ts";
import type { StagingPool } from "../../src/memory/staging_pool.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import type { AdapterSet } from "../../src/l2/adapter_set.ts";
import { retain } from "../../src/prefetch/prefetch_policy.ts";
import {
  PrefetchController,
  type PrefetchControllerOptions,
  type PrefetchOptions,
} from "../../src/prefetch/prefetch_controller.ts";
import { adapterSet, scratchPool } from "./controllers.ts";
import { assertNoLocks, lruL1 } from "./l1.ts";
import { testLayout } from "./objects.ts";
import { RecordingAdapter } from "./recording_adapter.ts";

/** Layout used by most tests. */
export const LAYOUT = testLayout(1024);
/** Size of a block of scratch. */
export const BLOCK_BYTES = 4096;

/** Result of a request for one group of keys. */
export interface Hit {
  readonly leases: readonly L1Lease[];
  readonly l1Objects: number;
}

/** A prefetch controller with its environment. On disposal nothing may be leaked. */
export interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  readonly scratch: StagingPool<Uint8Array>;
  readonly prefetch: PrefetchController;
  /** Advances the clock, running all work that does not wait for time before and after. */
  pass(ms: number): Promise<void>;
  /** Prefetches, releases the leases, and returns the numbers of objects served and from L1. */
  count(keys: readonly ObjectKey[], options?: PrefetchOptions): Promise<[number, number]>;
  /** Prefetches one group of keys. */
  match(keys: readonly ObjectKey[], layout: ObjectLayout, options?: PrefetchOptions): Promise<Hit>;
  /** Releases the leases of a hit. */
  release(hit: Hit): void;
}

/** Creates a prefetch controller. */
export function setUp(
  device: MemoryDevice,
  l2: readonly L2Adapter[],
  options:
    & {
      capacityBytes?: number;
      scratchBlocks?: number;
      writeTtlMs?: number;
      readTtlMs?: number;
    }
    & Partial<PrefetchControllerOptions> = {},
): SetUp {
  const {
    capacityBytes = 64 * 1024,
    scratchBlocks = 16,
    writeTtlMs = 600_000,
    readTtlMs = 300_000,
    ...controllerOptions
  } = options;
  const clock = new ManualClock();
  const adapters = adapterSet(l2, clock);
  const l1 = lruL1(device, clock, capacityBytes, { writeTtlMs, readTtlMs });
  const scratch = scratchPool(BLOCK_BYTES, scratchBlocks);
  const prefetch = new PrefetchController({
    l1,
    adapters,
    scratch,
    policy: retain,
    clock,
    barrier: new ForgetBarrier(),
    ...controllerOptions,
  });
  const match: SetUp["match"] = async (keys, layout, options) => {
    const { length, leases: [leases = []], l1Objects } = await prefetch.prefetch(
      [{ keys, layout }],
      options,
    );
    assertEquals(leases.length, length);
    return { leases, l1Objects };
  };
  const release = ({ leases }: Hit): void => void l1.finishRead(leases);
  return {
    clock,
    l1,
    adapters,
    scratch,
    prefetch,
    match,
    release,
    async pass(ms) {
      await settle();
      await clock.advance(ms);
      await settle();
    },
    async count(keys, options = {}) {
      const result = await match(keys, LAYOUT, options);
      release(result);
      return [result.leases.length, result.l1Objects];
    },
    [Symbol.dispose]() {
      assertNoLocks(l1);
      const { queuedRequests, activeRequests, drainingRequests } = prefetch.reportStatus();
      assertEquals([queuedRequests, activeRequests, drainingRequests], [0, 0, 0], "requests");
      assertEquals(scratch.lentBytes, 0, "scratch");
      assertEquals(clock.pendingTimers, 0, "timers");
      for (const guard of adapters.all) assertEquals(guard.lockedKeys, 0, "locks of lookups");
      for (const adapter of l2) {
        if (adapter instanceof RecordingAdapter) assertEquals(adapter.lockCount, 0, "L2 locks");
      }
      l1[Symbol.dispose]();
      scratch[Symbol.dispose]();
    },
  };
}

/** Runs all work that does not wait for time. */
export async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
}

/** Device memory of the objects of a hit. */
export function ranges({ leases }: { leases: readonly L1Lease[] }): L1Lease["range"][] {
  return leases.map(({ range }) => range);
}

/** The objects in L1. */
export function residents(l1: L1Cache, keys: readonly ObjectKey[]): boolean[] {
  return keys.map((key) => l1.has(key));
}
