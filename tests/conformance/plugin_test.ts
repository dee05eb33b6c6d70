import plugin from "../../adapters/plugin.ts";
import { runAdapterConformance } from "../../src/testing/mod.ts";

const config = { module: "adapters/dram.ts", params: { "max_capacity_gb": 0.1 } };

runAdapterConformance({ module: plugin, config: () => ({ config }) });

runAdapterConformance({
  module: plugin,
  config: () => ({ config: { ...config, isolate: true } }),
});
