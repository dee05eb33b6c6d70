import { assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ConfigError } from "../../../src/base/config_error.ts";
import { parseEviction } from "../../../src/l2/eviction_config.ts";

const GIB = 2 ** 30;

Deno.test("parseEviction() takes LMCache's keys, with its defaults", () => {
  const defaults = parseEviction("fs", { "max_capacity_gb": 2 });
  assertEquals([defaults.capacityBytes, defaults.highWatermark], [2 * GIB, 0.8]);
  assertAlmostEquals(defaults.lowWatermark ?? 0, 0.6);
  assertEquals(
    parseEviction("fs", {
      "eviction_policy": "LRU",
      "max_capacity_gb": 0.5,
      "trigger_watermark": 0.5,
      "eviction_ratio": 0.25,
    }),
    { capacityBytes: GIB / 2, highWatermark: 0.5, lowWatermark: 0.25, policy: "LRU" },
  );
});

Deno.test("parseEviction() removes all at most", () => {
  const eviction = { "max_capacity_gb": 1, "trigger_watermark": 0.2, "eviction_ratio": 1 };
  assertEquals(parseEviction("fs", eviction).lowWatermark, 0);
});

Deno.test("parseEviction() bounds nothing with the policy noop", () => {
  for (const rest of [{}, { "max_capacity_gb": 2 }]) {
    const { capacityBytes } = parseEviction("fs", { "eviction_policy": "noop", ...rest });
    assertEquals(capacityBytes, undefined);
  }
});

const wrong: Record<string, [unknown, key: string, expected: string]> = {
  "no object": ["LRU", "eviction", "object with the keys"],
  "null": [null, "eviction", "object with the keys"],
  "an array": [[], "eviction", "object with the keys"],
  "an unknown key": [{ max_gb: 1 }, "eviction.max_gb", "one of the keys eviction_policy"],
  "an unknown policy": [
    { "eviction_policy": "IsolatedLRU", "max_capacity_gb": 1 },
    "eviction.eviction_policy",
    "LRU or noop",
  ],
  "no capacity": [{ "eviction_policy": "LRU" }, "eviction.max_capacity_gb", "a number above 0"],
  "a capacity of 0": [
    { "max_capacity_gb": 0 },
    "eviction.max_capacity_gb",
    "number greater than 0",
  ],
  "a capacity in words": [{ "max_capacity_gb": "1" }, "eviction.max_capacity_gb", "number"],
  "a capacity that is no number": [
    { "max_capacity_gb": NaN },
    "eviction.max_capacity_gb",
    "number",
  ],
  "an endless capacity": [{ "max_capacity_gb": Infinity }, "eviction.max_capacity_gb", "at most"],
  "a watermark above 1": [
    { "max_capacity_gb": 1, "trigger_watermark": 1.5 },
    "eviction.trigger_watermark",
    "at most 1",
  ],
  "a ratio of 0": [
    { "max_capacity_gb": 1, "eviction_ratio": 0 },
    "eviction.eviction_ratio",
    "greater than 0",
  ],
  "a ratio of null": [
    { "max_capacity_gb": 1, "eviction_ratio": null },
    "eviction.eviction_ratio",
    "greater than 0",
  ],
};
for (const [name, [block, key, expected]] of Object.entries(wrong)) {
  Deno.test(`parseEviction() refuses ${name}`, () => {
    const error = assertThrows(() => parseEviction("fs", block), ConfigError);
    assertEquals([error.adapter, error.key], ["fs adapter", key]);
    assertStringIncludes(error.expected, expected);
  });
}
