import { assertEquals, assertGreater, assertRejects } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { ConfigError } from "../../../src/base/config_error.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { defineL2Adapter, type L2Adapter } from "../../../src/adapter/contract.ts";
import { wrapAdapter } from "../../../src/adapter/wrap_adapter.ts";
import { openAdapterRegistry } from "../../../src/known_adapters.ts";
import { checkConfig } from "../../../src/l2/adapter_config.ts";
import { openGuarded } from "../../../src/l2/open_adapter.ts";
import { mapAdapter, moduleOf } from "../../support/adapters.ts";
import { put } from "../../support/caches.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

const LAYOUT = testLayout(1024);
const GIB = 2 ** 30;
const dramPath = fromFileUrl(new URL("../../../adapters/dram.ts", import.meta.url));
const map = moduleOf(() => mapAdapter(), "map");

/** Wrappers, each with a configuration of what it wraps. */
const wrappers: Readonly<Record<string, (keys: Record<string, unknown>) => { type: string }>> = {
  "fault_inject": (keys) => ({ type: "fault_inject", inner: { type: "dram", ...keys } }),
  plugin: (keys) => ({ type: "plugin", module: dramPath, params: keys }),
};

for (const [type, configOf] of Object.entries(wrappers)) {
  Deno.test(`the adapter inside ${type} stores what its own serde makes`, async () => {
    const l2 = [configOf({ serde: { type: "zstd", threads: 1 } })];
    await using cache = await TieredCache.open({ device: new HostDevice(), l2 });
    put(cache, testKeys(3), LAYOUT);
    await cache.flush();
    const [adapter] = cache.reportStatus().adapters;
    const { serde, usedBytes } = adapter?.details as Record<string, Record<string, unknown>>;
    assertEquals([serde?.transforms, serde?.keptBytes], [["zstd"], usedBytes]);
    assertGreater(Number(serde?.givenBytes), 3 * 1024);
  });

  Deno.test(`a wrong serde inside ${type} is refused`, async () => {
    const l2 = [configOf({ serde: { type: "gzip" } })];
    const open = () => TieredCache.open({ device: new HostDevice(), l2 });
    await assertRejects(open, ConfigError, "serde: expected an object");
  });
}

for (const [own, bytes] of [[undefined, GIB], [{ max_capacity_gb: 2 }, 2 * GIB]] as const) {
  Deno.test(`limits inside fault_inject apply ${own ? "after its own" : "if it has none"}`, async () => {
    const inner = { type: "map", eviction: { max_capacity_gb: 1 } };
    const config = { type: "fault_inject", inner, ...(own && { eviction: own }) };
    const registry = await openAdapterRegistry({ adapters: [map] });
    await using opened = await openGuarded(await checkConfig(registry, config), { registry });
    assertEquals(opened.eviction?.capacityBytes, bytes);
  });
}

Deno.test("what is no adapter is refused, and closed if it can be", async () => {
  let closed = 0;
  const halves: Readonly<Record<string, unknown>> = {
    "one without capabilities, store, lookupAndLock, load, Symbol(Symbol.asyncDispose)": undefined,
    "one without store": {
      ...mapAdapter(),
      store: undefined,
      [Symbol.asyncDispose]: () => Promise.resolve(void closed++),
    },
  };
  for (const [received, half] of Object.entries(halves)) {
    const module = moduleOf(() => half as L2Adapter, "half");
    const open = () =>
      TieredCache.open({ device: new HostDevice(), adapters: [module], l2: [{ type: "half" }] });
    const error = await assertRejects(open, ConfigError);
    assertEquals([error.subject, error.key], ["half adapter", "create()"]);
    assertEquals(error.received, received);
  }
  assertEquals(closed, 1);
});

Deno.test("an adapter with a broken transform behind it is closed with it", async () => {
  let closed = 0;
  const adapter = wrapAdapter(mapAdapter(), {
    [Symbol.asyncDispose]: () => Promise.resolve(void closed++),
  });
  const module = defineL2Adapter({ ...moduleOf(() => adapter, "map") });
  const l2 = [{ type: "map", serde: { type: "zstd", threads: 1 } }];
  const open = () => TieredCache.open({ device: new HostDevice(), adapters: [module], l2 });
  await assertRejects(open, ConfigError, "transforms that keep the length");
  assertEquals(closed, 1);
});
