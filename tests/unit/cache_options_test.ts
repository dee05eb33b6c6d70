import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { resolveOptions, type TieredCacheOptions } from "../../src/cache_options.ts";
import { ConfigError } from "../../src/base/config_error.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";
import { STAGING_BLOCK_BYTES } from "../../src/memory/staging_pool.ts";

const MIB = 2 ** 20;

Deno.test("resolveOptions() fills in the documented defaults", () => {
  const { l1, store, prefetch, timeouts } = resolveOptions({});
  const { policy: storePolicy, ...storeNumbers } = store;
  const { policy: prefetchPolicy, ...prefetchNumbers } = prefetch;
  const { eviction, ...l1Numbers } = l1;
  assertEquals<unknown>(
    {
      l1: l1Numbers,
      storeNumbers,
      prefetchNumbers,
      policies: [eviction.name, storePolicy.name, prefetchPolicy.name],
    },
    {
      l1: { capacityBytes: 512 * MIB },
      storeNumbers: {
        maxInFlightBytes: 128 * MIB,
        maxQueuedBytes: 128 * MIB,
        whenFull: "wait",
        flushBytes: 16 * MIB,
        flushIdleMs: 50,
        attempts: 3,
        backOffMs: 200,
      },
      prefetchNumbers: { maxInFlightBytes: 128 * MIB },
      policies: ["LFU_AGED", "default", "retain"],
    },
  );
  assertEquals(timeouts, DEFAULT_ADAPTER_TIMEOUTS);
});

Deno.test("resolveOptions() keeps what is given, and takes undefined for left out", () => {
  const lfu = { name: "lfu", rank: (before = 0) => before + 1 };
  const given = {
    l1: { eviction: lfu, capacityBytes: 8 * MIB, readTtlMs: 5, watermark: { high: 0.9, low: 0.5 } },
    store: { flushBytes: undefined, flushIdleMs: 0, whenFull: "drop_oldest" },
    prefetch: { maxInFlightBytes: undefined },
    timeouts: { loadMs: 7, storeMs: undefined },
  } as unknown as TieredCacheOptions;
  const { l1: { eviction, ...l1 }, store, prefetch, timeouts } = resolveOptions(given);
  assertEquals(eviction, lfu);
  assertEquals(l1, {
    capacityBytes: 8 * MIB,
    readTtlMs: 5,
    watermark: { high: 0.9, low: 0.5 },
  });
  assertEquals([store.flushBytes, store.flushIdleMs, store.whenFull], [16 * MIB, 0, "drop_oldest"]);
  assertEquals([store.maxQueuedBytes, prefetch.maxInFlightBytes], [2 * MIB, 128 * MIB]);
  assertEquals(timeouts, { ...DEFAULT_ADAPTER_TIMEOUTS, loadMs: 7 });
});

Deno.test("resolveOptions() evicts ahead for a policy that writes before eviction", () => {
  assertEquals(resolveOptions({ store: { policy: "on_evict" } }).l1.watermark, {
    high: 0.8,
    low: 0.6,
  });
  const watermark = { high: 0.5, low: 0.4 };
  const own = resolveOptions({ l1: { watermark }, store: { policy: "on_evict" } });
  assertEquals(own.l1.watermark, watermark);
  assertEquals(resolveOptions({ store: { policy: "skip_l1" } }).l1.watermark, undefined);
});

Deno.test("resolveOptions() takes policies by name and as objects", () => {
  const names = ["default", "skip_l1", "on_evict"] as const;
  for (const policy of names) {
    assertEquals(resolveOptions({ store: { policy } }).store.policy.name, policy);
  }
  for (const policy of ["default", "retain"] as const) {
    assertEquals(resolveOptions({ prefetch: { policy } }).prefetch.policy.name, policy);
  }
  const store = { name: "mine", writes: "at-once", keepsInL1: true } as const;
  const prefetch = { name: "mine too", retains: () => true };
  const resolved = resolveOptions({ store: { policy: store }, prefetch: { policy: prefetch } });
  assert(resolved.store.policy === store);
  assert(resolved.prefetch.policy === prefetch);
});

const wrongNumbers: Record<string, TieredCacheOptions> = {
  "store.maxInFlightBytes": { store: { maxInFlightBytes: STAGING_BLOCK_BYTES - 1 } },
  "prefetch.maxInFlightBytes": { prefetch: { maxInFlightBytes: STAGING_BLOCK_BYTES - 1 } },
  "store.maxQueuedBytes": { store: { maxQueuedBytes: 0 } },
  "store.flushBytes": { store: { flushBytes: 0 } },
  "store.flushIdleMs": { store: { flushIdleMs: -1 } },
  "l1.capacityBytes": { l1: { capacityBytes: 0 } },
  "l1.slabBytes": { l1: { slabBytes: 1000 } },
  "l1.readTtlMs": { l1: { readTtlMs: NaN } },
  "store.attempts": { store: { attempts: 1.5 } },
  "store.backOffMs": { store: { backOffMs: NaN } },
  "breaker.failures": { breaker: { failures: 0 } },
  "breaker.coolDownMs": { breaker: { coolDownMs: -1 } },
  "breaker.maxCoolDownMs": { breaker: { maxCoolDownMs: -1 } },
  "timeouts.lookupMs": { timeouts: { lookupMs: -1 } },
  "timeouts.closeMs": { timeouts: { closeMs: NaN } },
};
for (const [name, options] of Object.entries(wrongNumbers)) {
  Deno.test(`resolveOptions() refuses a ${name} that cannot be`, () => {
    const error = assertThrows(() => resolveOptions(options), RangeError);
    assertStringIncludes(error.message, `${name} must be a`);
  });
}

Deno.test("resolveOptions() refuses watermarks that cannot be", () => {
  const wrong: [number, number][] = [[0.5, 0.6], [1.1, 0.5], [0.5, 0], [NaN, 0.5], [0.5, NaN]];
  for (const [high, low] of wrong) {
    assertThrows(
      () => resolveOptions({ l1: { watermark: { high, low } } }),
      RangeError,
      "l1.watermark",
    );
  }
});

const wrongKeys: Record<string, [unknown, string]> = {
  adapterDir: [
    { adapterDir: "." },
    'open() options must not have the key "adapterDir": did you mean adaptersDir?',
  ],
  capacity: [
    { l1: { capacity: 1 } },
    'l1 must not have the key "capacity": did you mean capacityBytes?',
  ],
  capacitybyte: [{ l1: { capacitybyte: 1 } }, "did you mean capacityBytes?"],
  hihg: [{ l1: { watermark: { hihg: 1 } } }, "did you mean high?"],
  attempt: [{ store: { attempt: 1 } }, 'store must not have the key "attempt": did you mean'],
  maxInflightBytes: [{ prefetch: { maxInflightByte: 1 } }, "did you mean maxInFlightBytes?"],
  loadsMs: [{ timeouts: { loadsMs: 1 } }, "did you mean loadMs?"],
  failure: [{ breaker: { failure: 1 } }, "did you mean failures?"],
};
for (const [key, [options, message]] of Object.entries(wrongKeys)) {
  Deno.test(`resolveOptions() refuses the unknown key ${key} and names the nearest one`, () => {
    assertThrows(() => resolveOptions(options as TieredCacheOptions), TypeError, message);
  });
}

const wrongTypes: Record<string, [unknown, string]> = {
  "l1.readTtlMs": [
    { l1: { readTtlMs: "300000" } },
    "must be a number of at least 1: received a str",
  ],
  "l1.capacityBytes": [
    { l1: { capacityBytes: null } },
    "must be a multiple of 256 of at least 256",
  ],
  "store.attempts": [
    { store: { attempts: "3" } },
    "must be an integer of at least 1: received a st",
  ],
  "store.whenFull": [{ store: { whenFull: 1 } }, "must be a string: received a number"],
  "store.policy": [{ store: { policy: 1 } }, "must be a name, or a policy of your own: received a"],
  "l1.watermark": [{ l1: { watermark: 0.8 } }, "must be an object with high and low: received a"],
  "l1.watermark.low": [
    { l1: { watermark: { high: 1, low: "1" } } },
    "must be a number: received a",
  ],
  "timeouts.loadMs": [{ timeouts: { loadMs: true } }, "must be a number of at least 0: received a"],
  l1: [{ l1: 5 }, "must be an object: received a number"],
  l2: [{ l2: { type: "fs" } }, "must be an array of adapters, like [{ type"],
  clock: [{ clock: Date }, "must be a Clock: received a function"],
  adapters: [{ adapters: {} }, "must be an array of adapter modules: received an empty object"],
  adaptersDir: [{ adaptersDir: 1 }, "must be a path or a URL: received a number"],
  "open() options": [null, "must be an object: received null"],
};
for (const [name, [options, message]] of Object.entries(wrongTypes)) {
  Deno.test(`resolveOptions() refuses a wrong type of ${name}`, () => {
    const error = assertThrows(() => resolveOptions(options as TieredCacheOptions), TypeError);
    assertStringIncludes(error.message, `${name} ${message}`);
  });
}

Deno.test("resolveOptions() refuses a longest cool-down that is shorter than the first", () => {
  assertThrows(
    () => resolveOptions({ breaker: { coolDownMs: 10, maxCoolDownMs: 9 } }),
    RangeError,
    "breaker.maxCoolDownMs must be at least coolDownMs (10): received 9",
  );
});

const wrongNames: Record<string, [unknown, string]> = {
  "store.policy": [
    { store: { policy: "eager" } },
    `"default", "skip_l1", "on_evict", "second_touch" or a policy`,
  ],
  "prefetch.policy": [{ prefetch: { policy: "all" } }, `"default", "retain" or a policy`],
  "l1.eviction": [
    { l1: { eviction: "fifo" } },
    `"LRU", "LFU_AGED", "S3_FIFO", "ARC" or a policy of your own`,
  ],
  "l1.eviction without rank": [
    { l1: { eviction: { name: "x" } } },
    "with a name and a method rank",
  ],
  "l1.eviction without name": [{ l1: { eviction: { rank: () => 1 } } }, "with a name and a method"],
  "store.whenFull": [{ store: { whenFull: "panic" } }, `"wait", "drop_new", "drop_oldest"`],
};
for (const [name, [options, expected]] of Object.entries(wrongNames)) {
  Deno.test(`resolveOptions() refuses an unknown ${name} and names those that there are`, () => {
    const error = assertThrows(() => resolveOptions(options as TieredCacheOptions), ConfigError);
    assertStringIncludes(error.message, name.split(" ")[0] ?? "");
    assertStringIncludes(error.message, expected);
  });
}
