import { boundedCases } from "./conformance/bounded_cases.ts";
import { bufferCases } from "./conformance/buffer_cases.ts";
import { closingCases } from "./conformance/closing_cases.ts";
import { concurrencyCases } from "./conformance/concurrency_cases.ts";
import { isolationCases } from "./conformance/isolation_cases.ts";
import { lateCases } from "./conformance/late_cases.ts";
import { lifetimeCases } from "./conformance/lifetime_cases.ts";
import { lookupCases } from "./conformance/lookup_cases.ts";
import { optionalCases } from "./conformance/optional_cases.ts";
import { promiseCases } from "./conformance/promise_cases.ts";
import { recencyCases, touchCases } from "./conformance/recency_cases.ts";
import { roundTripCases } from "./conformance/round_trip_cases.ts";
import {
  type AdapterConformanceOptions,
  type SubjectCase,
  testSubject,
} from "./conformance/subject.ts";

/** One promise of the adapter contract, as a test that knows no test runner. */
export interface AdapterConformanceCase {
  /** What is promised. */
  readonly name: string;
  /** Whether it is about a bounded store: without a `boundedConfig`, nothing is tested. */
  readonly isBounded: boolean;
  /** Rejects if the adapter does not keep it. */
  run(options: AdapterConformanceOptions): Promise<void>;
}

const subjectCases: readonly SubjectCase[] = [
  ...roundTripCases,
  ...lookupCases,
  ...isolationCases,
  ...bufferCases,
  ...concurrencyCases,
  ...lateCases,
  ...optionalCases,
  ...promiseCases,
  ...boundedCases,
  ...recencyCases,
  ...touchCases,
  ...lifetimeCases,
  ...closingCases,
];

/** Every promise of the adapter contract; see {@linkcode runAdapterConformance}. */
export const adapterConformanceCases: readonly AdapterConformanceCase[] = subjectCases.map(
  (each) => ({
    name: each.name,
    isBounded: each.capacityBytes !== undefined,
    run: (options) => testSubject(options, each),
  }),
);

/**
 * Registers one `Deno.test` for each promise of the adapter contract, named
 * `<type> adapter: <promise>`. Optional methods are tested where the adapter has them, and what it
 * promises beyond the contract where it does. What cannot be tested, because an adapter evicts and
 * there is no `boundedConfig`, is shown as ignored. Run the tests with sanitizers, so that what an
 * adapter does not release is found.
 */
export function runAdapterConformance(options: AdapterConformanceOptions): void {
  const { module, capabilities, boundedConfig } = options;
  const evicts = (capabilities ?? module.capabilities)?.evicts ?? false;
  for (const { name, isBounded, run } of adapterConformanceCases) {
    const isUntold = isBounded && boundedConfig === undefined;
    if (isUntold && !evicts) continue;
    const fn = (): Promise<void> => run(options);
    Deno.test({ name: `${module.type} adapter: ${name}`, ignore: isUntold, fn });
  }
}
