/**
 * Tools for testing adapters and caches: a conformance suite for adapter modules, wrappers that
 * inject faults and latency into adapters, and a clock that tests advance manually.
 *
 * @example Test an adapter: one test per requirement of the contract
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
 * @example Run the same cases with another test runner
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
 * @example Damage one load in ten, and let the third store hang
 * ```ts ignore
 * import { withFaults } from "@kvtier/kvtier/testing";
 *
 * const faulty = withFaults(adapter, {
 *   seed: 1,
 *   faults: [
 *     { kind: "corrupt", operations: ["load"], rate: 0.1 },
 *     { kind: "hang", operations: ["store"], calls: [2] },
 *   ],
 * });
 * ```
 *
 * @example Advance time manually
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
export { type Latency, withLatency } from "../adapter/with_latency.ts";
export {
  type AdapterConformanceCase,
  adapterConformanceCases,
  runAdapterConformance,
} from "./adapter_conformance.ts";
export type { AdapterConformanceOptions, ConformanceSetup } from "./conformance/subject.ts";
export type { FaultKind, FaultOperation, FaultPlan, FaultRule } from "./faults/fault_plan.ts";
export { type FaultyAdapter, withFaults } from "./faults/with_faults.ts";
export { ManualClock } from "./manual_clock.ts";
