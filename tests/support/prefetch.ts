import { assertEquals } from "@std/assert";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { L1Cache, L1Lease } from "../../src/l1/l1_cache.ts";
import type { L2Adapter } from "../../src/l2/adapter.ts";
import type { MemoryDevice } from "../../src/memory/memory_device.ts";
import type { StagingPool } from "../../src/memory/staging_pool.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import type { AdapterSet } from "../../src/tiering/adapter_set.ts";
import { retain } from "../../src/tiering/policies/retain.ts";
import {
  PrefetchController,
  type PrefetchControllerOptions,
  type PrefetchOptions,
} from "../../src/tiering/prefetch_controller.ts";
import { adapterSet, scratchPool } from "./controllers.ts";
import { assertNoLocks, lruL1 } from "./l1.ts";
import { testLayout } from "./objects.ts";
import { RecordingAdapter } from "./recording_adapter.ts";

/** Layout of the objects of most tests. */
export const LAYOUT = testLayout(1024);
/** Size of a block of scratch. */
export const BLOCK_BYTES = 4096;

/** What a request for one group of keys gets. */
export interface Hit {
  readonly leases: readonly L1Lease[];
  readonly l1Objects: number;
}

/** A prefetch controller with all it needs; at the end nothing may be left behind. */
export interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  readonly prefetch: PrefetchController;
  /** Moves the clock, and lets everything run that does not wait for time before and after. */
  pass(ms: number): Promise<void>;
  /** Prefetches and gives the leases back: how many objects were served, and how many from L1. */
  count(keys: readonly ObjectKey[], options?: PrefetchOptions): Promise<[number, number]>;
  /** Prefetches one group of keys. */
  match(keys: readonly ObjectKey[], layout: ObjectLayout, options?: PrefetchOptions): Promise<Hit>;
  /** Gives the leases of a hit back. */
  release(hit: Hit): void;
}

/** Sets a prefetch controller up. */
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

/** Lets everything run that does not wait for time. */
export async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
}

/** Where the objects of a hit lie. */
export function ranges({ leases }: { leases: readonly L1Lease[] }): L1Lease["range"][] {
  return leases.map(({ range }) => range);
}

/** Which objects are in L1. */
export function residents(l1: L1Cache, keys: readonly ObjectKey[]): boolean[] {
  return keys.map((key) => l1.has(key));
}
