import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { drops } from "../../../adapters/_fault_inject/drops.ts";
import faultInject from "../../../adapters/fault_inject.ts";
import {
  ConfigError,
  type LoadOptions,
  parseAdapterConfig,
} from "../../../src/adapter/contract.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { moduleOf, testEnvironment } from "../../support/adapters.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";
import { sealedObject } from "../../support/sealed_objects.ts";

const LAYOUT = testLayout(1024);
const NOTHING = { rate: 0, seed: 0, gapIndices: [], gapTailRatios: [] };

/** A cache with `fault_inject` around `inner` as its only adapter. */
async function openCache(inner: RecordingAdapter, options: Record<string, unknown>) {
  return await TieredCache.open({
    device: new HostDevice(),
    adapters: [moduleOf(() => inner, "inner")],
    l2: [{ type: "fault_inject", inner: { type: "inner" }, ...options }],
  });
}

/** Positions that a load of `count` objects drops. */
function dropped(rules: Partial<Parameters<typeof drops>[0]>, count: number): number[] {
  const isDropped = drops({ ...NOTHING, ...rules });
  return testKeys(count).flatMap((key, i) => isDropped(key, i, count) ? [i] : []);
}

Deno.test("fault_inject: positions are counted from the front, and from the end as fractions", () => {
  assertEquals(dropped({}, 5), []);
  assertEquals(dropped({ gapIndices: [0, 3, 9] }, 5), [0, 3]);
  assertEquals(dropped({ gapTailRatios: [0] }, 5), [4]);
  assertEquals(dropped({ gapTailRatios: [1] }, 5), [0]);
  assertEquals(dropped({ gapTailRatios: [0.5] }, 5), [2]);
  assertEquals(dropped({ gapTailRatios: [0.25, 0] }, 9), [6, 8]);
  assertEquals(dropped({ gapTailRatios: [0, 0.5, 1], gapIndices: [0] }, 1), [0]);
});

Deno.test("fault_inject: a rate is a share of the keys, always the same ones", () => {
  const keys = testKeys(2000);
  fc.assert(
    fc.property(fc.integer(), fc.double({ min: 0, max: 1, noNaN: true }), (seed, rate) => {
      const isDropped = drops({ ...NOTHING, seed, rate });
      const first = keys.filter((key) => isDropped(key, 0, 1));
      assertEquals(keys.toReversed().filter((key) => isDropped(key, 7, 9)), first.toReversed());
      assert(Math.abs(first.length / keys.length - rate) < 0.07, `${first.length} at ${rate}`);
    }),
    { seed: 1, numRuns: 10 },
  );
  const chosen = [1, 2].map((seed) => dropped({ rate: 0.5, seed }, 64).join());
  assert(chosen[0] !== chosen[1]);
  assertEquals(dropped({ rate: 1 }, 5), [0, 1, 2, 3, 4]);
});

Deno.test("fault_inject: lookups find objects that cannot be loaded, and the prefix ends there", async () => {
  const inner = new RecordingAdapter();
  const keys = testKeys(8);
  inner.seed(keys, LAYOUT);
  await using cache = await openCache(inner, { "gap_tail_ratios": [0.5] });
  using hit = await cache.match(keys, LAYOUT);
  assertEquals(hit.length, 4);
  assertEquals(inner.lockCount, 0);
  const [adapter] = cache.reportStatus().adapters;
  const { faultInject: details } = adapter?.details as { faultInject: { droppedLoads: number } };
  assert(details.droppedLoads > 0);
  assertEquals([adapter?.type, adapter?.isHealthy], ["fault_inject", true]);
});

Deno.test("fault_inject: dropped objects are not reported as loaded", async () => {
  const inner = new RecordingAdapter();
  const load = inner.load.bind(inner);
  inner.load = async (objects, options: LoadOptions) => {
    const loaded = await load(objects, options);
    for (const i of objects.keys()) options.onLoaded?.(i);
    return loaded;
  };
  const keys = testKeys(3);
  inner.seed(keys, LAYOUT);
  const config = parseAdapterConfig(faultInject, { inner: { type: "x" }, "gap_indices": [1] });
  const environment = testEnvironment({ open: () => Promise.resolve(inner) });
  await using adapter = await faultInject.create(config, environment);
  const told: number[] = [];
  const { signal } = new AbortController();
  const objects = keys.map((key) => sealedObject(key, LAYOUT));
  const loaded = await adapter.load(objects, { signal, onLoaded: (i) => void told.push(i) });
  assertEquals([loaded.test(0), loaded.test(1), loaded.test(2), told], [true, false, true, [0, 2]]);
});

Deno.test("fault_inject: built-in and wrapped adapters can be wrapped", async () => {
  const inner = { type: "fault_inject", rate: 0, inner: { type: "dram" } };
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l2: [{ type: "fault_inject", "gap_indices": [0], inner }],
  });
  const [adapter] = cache.reportStatus().adapters;
  assertEquals(adapter?.details.faultInject, {
    inner: "fault_inject",
    rate: 0,
    seed: 0,
    gapIndices: [0],
    gapTailRatios: [],
    droppedLoads: 0,
  });
});

Deno.test("fault_inject: the inner adapter closes with it, and its configuration is validated", async () => {
  const inner = new RecordingAdapter();
  await (await openCache(inner, {}))[Symbol.asyncDispose]();
  assert(inner.isDisposed);
  const wrong: [Record<string, unknown>, string][] = [
    [{ rate: 1.5 }, "rate: expected number from 0 to 1: received 1.5"],
    [{ rate: true }, "rate: expected number from 0 to 1: received true"],
    [{ seed: 0.5 }, "seed: expected integer: received 0.5"],
    [{ "gap_indices": [1, -1] }, "gap_indices: expected list of integers of at least 0"],
    [{ "gap_indices": 1 }, "gap_indices: expected list of integers of at least 0"],
    [{ "gap_tail_ratios": [2] }, "gap_tail_ratios: expected list of numbers from 0 to 1"],
    [{ "gap_tail_ratios": [NaN] }, "gap_tail_ratios: expected list of numbers from 0 to 1"],
    [{ inner: undefined }, 'inner: expected object: received "nothing"'],
    [{ inner: "fs" }, "inner: expected object: received a string"],
    [{ inner: { password: "hush" } }, 'inner.type: expected an adapter type: received "'],
    [{ inner: { type: "tape" } }, "Adapter type: expected one of "],
    [{ inner: { type: "dram", size: 1 } }, "dram adapter: size: expected one of the keys "],
  ];
  for (const [options, message] of wrong) {
    const error = await assertRejects(() => openCache(inner, options), ConfigError, message);
    assert(!error.message.includes("hush"));
  }
});

Deno.test("fault_inject reports that it needs a cache that opens the inner adapter", async () => {
  const config = parseAdapterConfig(faultInject, { inner: { type: "dram" } });
  const made = async () => await faultInject.create(config, testEnvironment());
  await assertRejects(made, ConfigError, "inner: expected a cache that opens it");
});
