import { assertEquals, assertLessOrEqual } from "@std/assert";
import type { L2Adapter } from "../../src/adapter/contract.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { ManualClock, withFaults } from "../../src/testing/mod.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";
import { assertRanges } from "../support/l1.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { RecordingAdapter } from "../support/recording_adapter.ts";

const LAYOUT = testLayout(1024);
const CHUNKS = 1_000;
const DEADLINE_MS = 500;

/** An adapter whose calls never settle. */
const hung: L2Adapter = {
  capabilities: {},
  store: () => new Promise(() => {}),
  lookupAndLock: () => new Promise(() => {}),
  load: () => new Promise(() => {}),
  [Symbol.asyncDispose]: () => Promise.resolve(),
};

for (const held of [CHUNKS, 600]) {
  Deno.test(`a hung and a failing adapter cost no hit: ${held} of 1,000 chunks are served`, async () => {
    const clock = new ManualClock();
    const good = new RecordingAdapter();
    await using cache = await TieredCache.open({
      device: new HostDevice(),
      l1: { capacityBytes: 4 * CHUNKS * LAYOUT.byteLength },
      adapters: [
        moduleOf(() => hung, "hung"),
        moduleOf(() => withFaults(mapAdapter(), { faults: [{ kind: "error" }] }), "failing"),
        moduleOf(() => good, "good"),
      ],
      l2: [{ type: "hung" }, { type: "failing" }, { type: "good" }],
      clock,
    });
    const keys = testKeys(CHUNKS);
    good.seed(keys.slice(0, held), LAYOUT);

    for (let request = 0; request < 5; request++) {
      cache.clearL1();
      const startedAt = clock.now();
      let tookMs = Infinity;
      const matched = cache.match(keys, LAYOUT, { deadlineMs: DEADLINE_MS }).then((hit) => {
        tookMs = clock.now() - startedAt;
        return hit;
      });
      for (let ms = 0; tookMs === Infinity && ms < 10 * DEADLINE_MS; ms += 10) {
        await clock.advance(10);
      }
      using hit = await matched;
      assertLessOrEqual(tookMs, DEADLINE_MS + 50);
      assertEquals(hit.length, held, `request ${request}`);
      await assertRanges(cache.device, hit.ranges(), keys.slice(0, held));
    }
    // By then the hung call has missed its own deadline, and its adapter is no longer waited for.
    await clock.advance(2_000);
    const startedAt = clock.now();
    using hit = await cache.match(keys, LAYOUT, { deadlineMs: DEADLINE_MS });
    assertEquals([hit.length, clock.now() - startedAt], [held, 0]);
    const isHealthy = cache.reportStatus().adapters.map((adapter) => adapter.isHealthy);
    assertEquals(isHealthy, [false, false, true]);
  });
}
