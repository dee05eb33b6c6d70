import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../../src/base/config_error.ts";
import {
  type PrefetchPolicy,
  resolvePrefetchPolicy,
} from "../../../src/prefetch/prefetch_policy.ts";
import { resolveStorePolicy, type StorePolicy } from "../../../src/store/store_policy.ts";
import { testKey } from "../../support/objects.ts";

const STORE_POLICIES: StorePolicy[] = [
  { name: "default", writes: "at-once", keepsInL1: true },
  { name: "skip_l1", writes: "at-once", keepsInL1: false },
  { name: "on_evict", writes: "before-eviction", keepsInL1: true },
];
for (const policy of STORE_POLICIES) {
  Deno.test(`resolveStorePolicy() knows ${policy.name}`, () => {
    assertEquals(resolveStorePolicy(policy.name), policy);
  });
}

Deno.test("resolveStorePolicy() returns a policy as it is", () => {
  const own: StorePolicy = { name: "default", writes: "before-eviction", keepsInL1: false };
  assertEquals(resolveStorePolicy(own) === own, true);
});

Deno.test("resolveStorePolicy() names the known policies when one is unknown", () => {
  const error = assertThrows(() => resolveStorePolicy("skip-l1"), ConfigError);
  assertEquals(error.adapter, "store.policy");
  assertEquals(
    error.expected,
    '"default", "skip_l1", "on_evict", "second_touch" or a policy of your own',
  );
  assertEquals(error.received, "skip-l1");
});

for (const [name, retains] of [["default", false], ["retain", true]] as const) {
  Deno.test(`resolvePrefetchPolicy() knows ${name}`, () => {
    const policy = resolvePrefetchPolicy(name);
    assertEquals([policy.name, policy.retains(testKey(0))], [name, retains]);
  });
}

Deno.test("resolvePrefetchPolicy() returns a policy as it is", () => {
  const own: PrefetchPolicy = { name: "own", retains: () => true };
  assertEquals(resolvePrefetchPolicy(own) === own, true);
});

Deno.test("resolvePrefetchPolicy() names the known policies when one is unknown", () => {
  const error = assertThrows(() => resolvePrefetchPolicy("skip_l1"), ConfigError);
  assertEquals(error.adapter, "prefetch.policy");
  assertEquals(error.expected, '"default", "retain" or a policy of your own');
});
