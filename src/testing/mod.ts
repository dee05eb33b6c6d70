/**
 * What tests of adapters and of caches need: the conformance suite that any adapter module can be
 * given, wrappers that make an adapter fail or slow, and a clock that stands still until it is
 * moved.
 *
 * @example Test an adapter: one test for each promise of the contract
 * ```ts ignore
 * import { runAdapterConformance } from "@kvtier/kvtier/testing";
 * import sqlite from "./sqlite.ts";
 *
 * runAdapterConformance({
 *   module: sqlite,
 *   capabilities: { durable: true },
 *   async config() {
 *     const directory = await Deno.makeTempDir();
 *     return {
 *       config: { path: `${directory}/kv.db` },
 *       [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
 *     };
 *   },
 * });
 * ```
 *
 * @example Give the same cases to another test runner
 * ```ts ignore
 * import { it } from "node:test";
 * import { adapterConformanceCases } from "@kvtier/kvtier/testing";
 * import map from "./map.ts";
 *
 * for (const { name, run } of adapterConformanceCases) {
 *   it(name, () => run({ module: map, config: () => ({ config: {} }) }));
 * }
 * ```
 *
 * @example Move time by hand
 * ```ts
 * import { ManualClock } from "@kvtier/kvtier/testing";
 *
 * const clock = new ManualClock();
 * let rang = false;
 * clock.schedule(() => rang = true, 60_000);
 * await clock.advance(60_000);
 * if (!rang) throw new Error("The clock must ring");
 * ```
 *
 * @module
 */
export {
  type AdapterConformanceCase,
  adapterConformanceCases,
  runAdapterConformance,
} from "./adapter_conformance.ts";
export type { AdapterConformanceOptions, ConformanceSetup } from "./conformance/subject.ts";
export type { FaultKind, FaultOperation, FaultPlan, FaultRule } from "./faults/fault_plan.ts";
export { type FaultyAdapter, withFaults } from "./faults/with_faults.ts";
export { ManualClock } from "./manual_clock.ts";
export { type Latency, withLatency } from "./with_latency.ts";
