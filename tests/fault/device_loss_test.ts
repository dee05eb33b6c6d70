import { assert, assertEquals, assertThrows } from "@std/assert";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { concatParts } from "../../src/adapter/contract.ts";
import { DeviceLostError } from "../../src/memory/memory_device.ts";
import type { CacheHit } from "../../src/cache_hit.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";
import { assertSameBytes } from "../support/bytes.ts";
import { gpuTest } from "../support/devices.ts";
import { testBytes, testKey, testKeys, testLayout } from "../support/objects.ts";
import { seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";

const LAYOUT = testLayout(4096);
const LOSSES_A_TEST = 100;
const { numRuns: tests, seed: firstSeed = Date.now() % 1_000_000 } = runs(5);

/** Writes objects like an engine: uploads, then `finishWrite`. */
function put(cache: TieredCache, keys: readonly ObjectKey[]): void {
  const written = cache.reserveWrite(keys, LAYOUT).flatMap((reservation) => {
    if (reservation.status !== "success") return [];
    const { key, range } = reservation.staged;
    cache.device.upload(range, [testBytes(key, range.byteLength)]);
    return [reservation.staged];
  });
  cache.finishWrite(written);
}

/** Asserts that the bytes of a hit are right, or that the device reports its loss. */
async function check(cache: TieredCache, hit: CacheHit, keys: readonly ObjectKey[]): Promise<void> {
  const { device } = cache;
  try {
    const ranges = hit.ranges();
    using readBack = await device.readBack(ranges.map((range) => ({ range, tailBytes: 0 })));
    // Only while the pins held until now do the bytes have to be the objects'.
    hit.ranges();
    for (const [i, pieces] of readBack.objects.entries()) {
      const key = keys[i] as ObjectKey;
      assertSameBytes(concatParts(pieces), testBytes(key, LAYOUT.byteLength), key.id);
    }
  } catch (error) {
    if (!(error instanceof DeviceLostError)) throw error;
    assert(device.isLost);
  }
}

async function newDevice(): Promise<GPUDevice> {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter?.requestDevice();
  assert(device !== undefined);
  return device;
}

for (let test = 0; test < tests; test++) {
  const seed = firstSeed + test;
  gpuTest(`TieredCache survives ${LOSSES_A_TEST} lost devices, seed ${seed}`, async (first) => {
    const random = seededRandom(seed);
    const held = new Map<string, Uint8Array<ArrayBuffer>>();
    let device = first;
    await using cache = await TieredCache.open({
      device,
      l1: { capacityBytes: 64 * LAYOUT.byteLength },
      adapters: [moduleOf(() => mapAdapter(held))],
      l2: [{ type: "hand_made" }],
      store: { flushBytes: 8 * LAYOUT.byteLength, flushIdleMs: 1, backOffMs: 1 },
    });
    const kept = testKeys(6);
    put(cache, kept);
    await cache.flush();
    assertEquals(kept.every(({ id }) => held.has(id)), true);

    for (let loss = 0; loss < LOSSES_A_TEST; loss++) {
      const fresh = Array.from({ length: 8 }, (_, i) => testKey(1000 + loss * 8 + i));
      using before = await cache.match(kept, LAYOUT);
      assertEquals(before.length, kept.length, `loss ${loss}: L1 is refilled`);
      await check(cache, before, kept);

      const steps: (() => Promise<void> | void)[] = [
        () => put(cache, fresh.slice(0, 4)),
        () => put(cache, fresh.slice(4)),
        () => cache.flush(),
        () => cache.clearL1(),
        async () => {
          using hit = await cache.match(fresh, LAYOUT);
          await check(cache, hit, fresh);
        },
        async () => {
          using hit = await cache.match(kept, LAYOUT);
          await check(cache, hit, kept);
        },
        async () => void await cache.warm([{ keys: kept, layout: LAYOUT }]),
      ];
      const work = Array.from({ length: 3 }, async () => {
        for (let step = 0; step < 4; step++) await random.pick(steps)();
      });
      const lost = (async () => {
        // A random number of turns: of promises, or of the event loop.
        for (let turn = random.below(60); turn > 0; turn--) await Promise.resolve();
        for (let turn = random.below(4); turn > 0; turn--) {
          await new Promise((resolve) => setTimeout(resolve));
        }
        device.destroy();
      })();
      await Promise.all([...work, lost]);
      await device.lost;
      assertThrows(() => before.ranges(), DeviceLostError);
      assertEquals(cache.reportStatus().problems.length, 1, "it says that the device is lost");

      device = await newDevice();
      await cache.attachDevice(device);
      assertThrows(() => before.ranges(), DeviceLostError, undefined, "also with the new device");
      assertEquals(cache.reportStatus().problems, []);
    }
    using hit = await cache.match(kept, LAYOUT);
    assertEquals([hit.length, hit.l1Objects], [kept.length, 0], "all from L2");
    await check(cache, hit, kept);
    hit[Symbol.dispose]();
    await cache.flush();
    const { l1, store, prefetch } = cache.reportStatus();
    assertEquals(
      [l1.readLockedCount, l1.stagingObjectCount, l1.heldCount, l1.leavingCount],
      [0, 0, 0, 0],
    );
    assertEquals([store.unsavedObjects, prefetch.loadBytesInUse], [0, 0]);
    await cache.close();
    device.destroy();
  });
}
