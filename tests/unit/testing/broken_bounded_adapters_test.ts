// Each of these adapters that bound themselves breaks one promise.
import { assertEquals } from "@std/assert";
import mock from "../../../adapters/mock.ts";
import {
  type AdapterEnvironment,
  type AdapterObject,
  Bitmap,
  type L2Adapter,
  type ObjectKey,
} from "../../../src/adapter/contract.ts";
import { wrapAdapter } from "../../../src/adapter/wrap_adapter.ts";
import { adapterConformanceCases, type ConformanceSetup } from "../../../src/testing/mod.ts";
import { mapAdapter, moduleOf, testEnvironment } from "../../support/adapters.ts";
import { type Broken, type BrokenOptions, failedCases } from "../../support/failed_cases.ts";

const GIB = 2 ** 30;

/** An adapter made for a case with the capacity that the case asks for. */
function boundedTo(
  create: (capacityBytes: number, environment: AdapterEnvironment) => L2Adapter,
): BrokenOptions {
  let capacityBytes = GIB;
  const setup = (bytes: number): ConformanceSetup => {
    capacityBytes = bytes;
    return { config: {} };
  };
  return {
    module: moduleOf((environment) => create(capacityBytes, environment)),
    config: () => setup(GIB),
    boundedConfig: setup,
  };
}

function mockOf(bytes: number, environment = testEnvironment()): L2Adapter {
  const config = { "max_size_gb": bytes / GIB, "mock_bandwidth_gb": 1e6 };
  return mock.create(config, environment) as L2Adapter;
}

/** An adapter that bounds itself. */
function bounded(
  breakIt: (
    adapter: L2Adapter,
    capacityBytes: number,
    environment: AdapterEnvironment,
  ) => Partial<L2Adapter>,
): BrokenOptions {
  return boundedTo((bytes, environment) => {
    const adapter = mockOf(bytes, environment);
    return wrapAdapter(adapter, breakIt(adapter, bytes, environment));
  });
}

/** An adapter that tells of its evictions in its own way. */
function telling(
  tell: (onEvicted: (keys: readonly ObjectKey[]) => void) => (keys: readonly ObjectKey[]) => void,
): BrokenOptions {
  return boundedTo((bytes, environment) => {
    const { onEvicted = () => {} } = environment;
    return mockOf(bytes, { ...environment, onEvicted: tell(onEvicted) });
  });
}

/** An adapter that makes room in an order of its own, and tells nothing of it. */
function evicting(order: { countsUses: boolean; first: "oldest" | "youngest" }): BrokenOptions {
  return boundedTo((capacityBytes) => {
    const adapter = mockOf(GIB);
    const held = new Map<string, AdapterObject>();
    const use = (keys: readonly ObjectKey[]): void => {
      for (const { id } of order.countsUses ? keys : []) {
        const object = held.get(id);
        if (object === undefined) continue;
        held.delete(id);
        held.set(id, object);
      }
    };
    const hasRoom = async (byteLength: number): Promise<boolean> => {
      const usedBytes = async () => (await adapter.usage?.(call()))?.usedBytes ?? 0;
      const leaving = [...held.values()];
      if (order.first === "youngest") leaving.reverse();
      for (const { key } of leaving) {
        if (await usedBytes() + byteLength <= capacityBytes) break;
        const removal = await adapter.delete?.([key], call());
        if (removal?.deleted.test(0)) held.delete(key.id);
      }
      return await usedBytes() + byteLength <= capacityBytes;
    };
    return wrapAdapter(adapter, {
      store: async (objects, options) => {
        const stored = new Bitmap(objects.length);
        let bytes = 0;
        for (const [i, object] of objects.entries()) {
          if (!held.has(object.key.id) && !await hasRoom(object.byteLength)) continue;
          held.set(object.key.id, object);
          const result = await adapter.store([object], options);
          if (result.stored.test(0)) stored.set(i);
          bytes += result.bytes;
        }
        return { stored, bytes };
      },
      lookupAndLock: async (keys, options) => {
        const found = await adapter.lookupAndLock(keys, options);
        use(found.gather(keys));
        return found;
      },
      load: async (objects, options) => {
        const loaded = await adapter.load(objects, options);
        use(loaded.gather(objects).map(({ key }) => key));
        return loaded;
      },
      touch: use,
    });
  });
}

const call = () => ({ signal: new AbortController().signal });

const ABOUT_BOUNDS = new Set(
  adapterConformanceCases
    .filter(({ name, isBounded }) => isBounded || /lock|touch|delete/.test(name))
    .map(({ name }) => name),
);

const BROKEN: readonly Broken[] = [
  ["nothing at all, within a bound", [], bounded(() => ({}))],
  [
    "evicts what is locked",
    [
      "evicts to stay within its capacity, but never locked objects",
      "unlocked objects can be evicted again",
      "an object locked twice and unlocked once stays locked",
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
      "evicts to stay within its capacity, but never locked objects",
      "unlocked objects can be evicted again",
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
    "lookup and delete answer for each of many keys",
    "unlocked objects can be evicted again",
  ], bounded(() => ({ unlock: () => {} }))],
  [
    "keeps a set of locks and no count",
    ["an object locked twice and unlocked once stays locked"],
    bounded((adapter) => {
      const locked = new Set<string>();
      return {
        lookupAndLock: async (keys, options) => {
          const found = await adapter.lookupAndLock(keys, options);
          for (const key of found.gather(keys)) {
            if (locked.has(key.id)) adapter.unlock?.([key]);
            locked.add(key.id);
          }
          return found;
        },
        unlock: (keys) => {
          for (const { id } of keys) locked.delete(id);
          adapter.unlock?.(keys);
        },
      };
    }),
  ],
  ["evicts first what was used last", [
    "evicts unused objects before objects that are looked up and loaded",
    "evicts untouched objects before touched ones, if the adapter has touch",
  ], evicting({ countsUses: true, first: "youngest" })],
  ["counts no uses", [
    "evicts unused objects before objects that are looked up and loaded",
    "evicts untouched objects before touched ones, if the adapter has touch",
  ], evicting({ countsUses: false, first: "oldest" })],
  [
    "has a touch that does nothing",
    ["evicts untouched objects before touched ones, if the adapter has touch"],
    bounded(() => ({ touch: () => {} })),
  ],
  [
    "throws at a touch of what it lacks",
    ["touch has no other effect and ignores missing objects"],
    bounded((adapter) => {
      const held = new Set<string>();
      return {
        store: (objects, options) => {
          for (const { key } of objects) held.add(key.id);
          return adapter.store(objects, options);
        },
        touch: (keys) => {
          if (!keys.every(({ id }) => held.has(id))) throw new Error("No such object");
          adapter.touch?.(keys);
        },
      };
    }),
  ],
  [
    "locks what is touched",
    ["touch has no other effect and ignores missing objects"],
    bounded((adapter) => ({
      touch: (keys) => void adapter.lookupAndLock(keys, { ...call(), prefix: false }),
    })),
  ],
  [
    "tells of some evictions only",
    ["reports exactly the evicted objects, if it reports any"],
    telling((onEvicted) => {
      let calls = 0;
      return (keys) => calls++ % 2 === 0 ? onEvicted(keys) : undefined;
    }),
  ],
  [
    "tells of evictions of what it has",
    ["reports exactly the evicted objects, if it reports any"],
    bounded((adapter, _, { onEvicted }) => ({
      store: async (objects, options) => {
        const result = await adapter.store(objects, options);
        onEvicted?.(objects.slice(-1).map(({ key }) => key));
        return result;
      },
    })),
  ],
  [
    "tells of evictions of what its caller removed",
    ["reports exactly the evicted objects, if it reports any"],
    bounded((adapter, _, { onEvicted }) => ({
      delete: async (keys, options) => {
        onEvicted?.(keys);
        return await adapter.delete?.(keys, options) ??
          { deleted: new Bitmap(keys.length), bytes: 0 };
      },
    })),
  ],
  ["tells of no evictions, which is allowed", [], telling(() => () => {})],
  [
    "gives up a batch for an object that has no room",
    ["an object larger than the store affects no other object"],
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
    // The other cases are not about bounds.
    const isAsked = (name: string): boolean => promises.length === 0 || ABOUT_BOUNDS.has(name);
    assertEquals(await failedCases(options, isAsked), promises.toSorted());
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
  assertEquals(new Set(asked), new Set([4 * 2 ** 20]));
  assertEquals(asked.length, adapterConformanceCases.filter(({ isBounded }) => isBounded).length);
});
