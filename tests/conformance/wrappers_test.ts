import dram from "../../adapters/dram.ts";
import { defineL2Adapter, type L2Adapter } from "../../src/adapter/contract.ts";
import {
  adapterConformanceCases,
  ManualClock,
  withFaults,
  withLatency,
} from "../../src/testing/mod.ts";

/** Wrappers that only add latency: the wrapped adapter must still conform. */
const wrappers: Readonly<Record<string, (adapter: L2Adapter) => L2Adapter>> = {
  "withFaults that injects nothing": (adapter) => withFaults(adapter, { faults: [] }),
  "withFaults with rates of 0": (adapter) =>
    withFaults(adapter, {
      faults: [{ kind: "error", rate: 0 }, { kind: "corrupt", rate: 0 }],
      clock: new ManualClock(),
    }),
  "withLatency": (adapter) =>
    withLatency(adapter, { bandwidth: 1e10, callDelayMs: 0.1, perKeyMs: 0.001 }),
};

for (const [name, wrap] of Object.entries(wrappers)) {
  const module = defineL2Adapter({
    ...dram,
    create: async (config, environment) => wrap(await dram.create(config, environment)),
  });
  const boundedConfig = (capacityBytes: number) => ({
    config: { "max_capacity_gb": capacityBytes / 2 ** 30 },
  });
  const options = { module, config: () => ({ config: {} }), boundedConfig };
  Deno.test(`an adapter behind ${name} conforms`, async (t) => {
    for (const { name, run } of adapterConformanceCases) await t.step(name, () => run(options));
  });
}
