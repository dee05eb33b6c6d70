// Each of these adapters that bound themselves breaks one promise.
import { assertEquals } from "@std/assert";
import mock from "../../../adapters/mock.ts";
import { Bitmap, type L2Adapter } from "../../../src/l2/adapter.ts";
import { wrapAdapter } from "../../../src/l2/wrap_adapter.ts";
import { adapterConformanceCases, type ConformanceSetup } from "../../../src/testing/mod.ts";
import { mapAdapter, moduleOf, testEnvironment } from "../../support/adapters.ts";
import { type Broken, type BrokenOptions, failedCases } from "../../support/failed_cases.ts";

const GIB = 2 ** 30;

/** An adapter that bounds itself. */
function bounded(
  breakIt: (adapter: L2Adapter, capacityBytes: number) => Partial<L2Adapter>,
): BrokenOptions {
  let capacityBytes = GIB;
  const setup = (bytes: number): ConformanceSetup => {
    capacityBytes = bytes;
    return { config: {} };
  };
  return {
    module: moduleOf(() => {
      const config = { "max_size_gb": capacityBytes / GIB, "mock_bandwidth_gb": 1e6 };
      const adapter = mock.create(config, testEnvironment()) as L2Adapter;
      return wrapAdapter(adapter, breakIt(adapter, capacityBytes));
    }),
    config: () => setup(GIB),
    boundedConfig: setup,
  };
}

const BROKEN: readonly Broken[] = [
  ["nothing at all, within a bound", [], bounded(() => ({}))],
  [
    "evicts what is locked",
    [
      "makes room within its capacity, but not by what is locked",
      "what is not locked any more makes room again",
    ],
    bounded((adapter) => ({
      lookupAndLock: async (keys, options) => {
        const found = await adapter.lookupAndLock(keys, options);
        adapter.unlock?.(found.gather(keys));
        return found;
      },
    })),
  ],
  [
    "holds more than it may",
    [
      "makes room within its capacity, but not by what is locked",
      "what is not locked any more makes room again",
    ],
    bounded((adapter, capacityBytes) => ({
      usage: async (options) => {
        const usage = await adapter.usage?.(options);
        if (usage === undefined) throw new Error("mock tells how much it holds");
        return { ...usage, capacityBytes: capacityBytes / 2 };
      },
    })),
  ],
  ["never forgets a lock", [
    "delete of a locked object either removes it or leaves it whole",
    "what is not locked any more makes room again",
  ], bounded(() => ({ unlock: () => {} }))],
  [
    "gives up a batch for an object that has no room",
    ["an object that is larger than all of the store costs only itself"],
    bounded((adapter, capacityBytes) => ({
      store: (objects, options) => {
        const isTooLarge = objects.some(({ byteLength }) => byteLength > capacityBytes);
        return adapter.store(isTooLarge ? [] : objects, options).then((result) =>
          isTooLarge ? { stored: new Bitmap(objects.length), bytes: 0 } : result
        );
      },
    })),
  ],
];

for (const [what, promises, options] of BROKEN) {
  Deno.test(`the conformance suite says what is wrong with an adapter: ${what}`, async () => {
    assertEquals(await failedCases(options), promises.toSorted());
  });
}

Deno.test("cases about a bounded store test nothing without a configuration for it", async () => {
  const module = moduleOf(() => mapAdapter());
  const asked: number[] = [];
  for (const { isBounded, run } of adapterConformanceCases) {
    if (!isBounded) continue;
    const config = () => ({ config: {} });
    await run({ module, config });
    const boundedConfig = (capacityBytes: number) => {
      asked.push(capacityBytes);
      return config();
    };
    // An adapter without any bound takes what no store has room for.
    await run({ module, config, boundedConfig }).catch(() => {});
  }
  assertEquals(asked, [4 * 2 ** 20, 4 * 2 ** 20, 4 * 2 ** 20]);
});
