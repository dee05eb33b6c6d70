import dram from "../../adapters/dram.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";

const variants: Record<string, Readonly<Record<string, unknown>>> = {
  "as it is": {},
  "without eviction": { eviction: { "eviction_policy": "noop" } },
  "with watermarks": { "max_capacity_gb": 0.1, eviction: {} },
};

const boundedConfig = (capacityBytes: number) => ({
  config: { "max_capacity_gb": capacityBytes / 2 ** 30 },
});

for (const [name, config] of Object.entries(variants)) {
  for (const { name: promise, run } of adapterConformanceCases) {
    Deno.test(`dram adapter, ${name}: ${promise}`, () => {
      return run({
        module: dram,
        config: () => ({ config }),
        ...(name === "as it is" ? { boundedConfig } : {}),
      });
    });
  }
}
