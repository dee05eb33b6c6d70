import plugin from "../../adapters/plugin.ts";
import { runAdapterConformance } from "../../src/testing/mod.ts";

runAdapterConformance({
  module: plugin,
  config: () => ({ config: { module: "adapters/dram.ts", params: { "max_capacity_gb": 0.1 } } }),
});
