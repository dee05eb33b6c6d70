import { abortedCases } from "./conformance/aborted_cases.ts";
import { boundedCases } from "./conformance/bounded_cases.ts";
import { bufferCases } from "./conformance/buffer_cases.ts";
import { closingCases } from "./conformance/closing_cases.ts";
import { concurrencyCases } from "./conformance/concurrency_cases.ts";
import { isolationCases } from "./conformance/isolation_cases.ts";
import { lifetimeCases } from "./conformance/lifetime_cases.ts";
import { lookupCases } from "./conformance/lookup_cases.ts";
import { optionalCases } from "./conformance/optional_cases.ts";
import { promiseCases } from "./conformance/promise_cases.ts";
import { roundTripCases } from "./conformance/round_trip_cases.ts";
import { type AdapterConformanceOptions, type Cases, testSubject } from "./conformance/subject.ts";

/** One requirement of the adapter contract, as a test for any test runner. */
export interface AdapterConformanceCase {
  /** The requirement. */
  readonly name: string;
  /** Whether the case needs a bounded store: it passes untested without a `boundedConfig`. */
  readonly isBounded: boolean;
  /** Rejects if the adapter violates the requirement. */
  run(options: AdapterConformanceOptions): Promise<void>;
}

/** The cases, and whether they need a bounded store. */
const GROUPS: readonly (readonly [cases: Cases, isBounded: boolean])[] = [
  [roundTripCases, false],
  [lookupCases, false],
  [isolationCases, false],
  [bufferCases, false],
  [concurrencyCases, false],
  [abortedCases, false],
  [optionalCases, false],
  [promiseCases, false],
  [boundedCases, true],
  [lifetimeCases, false],
  [closingCases, false],
];

/** All requirements of the adapter contract; see {@linkcode runAdapterConformance}. */
export const adapterConformanceCases: readonly AdapterConformanceCase[] = GROUPS.flatMap(
  ([cases, isBounded]) =>
    Object.entries(cases).map(([name, check]) => ({
      name,
      isBounded,
      run: (options) => testSubject(options, check, isBounded),
    })),
);

/**
 * Registers one `Deno.test` per requirement of the adapter contract, named
 * `<type> adapter: <requirement>`. Optional methods and capabilities are tested if the adapter has
 * them. Cases about eviction are shown as ignored if the adapter evicts and there is no
 * `boundedConfig`. Run the tests with sanitizers to find resources that an adapter does not release.
 */
export function runAdapterConformance(options: AdapterConformanceOptions): void {
  const { module, capabilities, boundedConfig } = options;
  const evicts = (capabilities ?? module.capabilities)?.evicts ?? false;
  for (const { name, isBounded, run } of adapterConformanceCases) {
    const isIgnored = isBounded && boundedConfig === undefined;
    if (isIgnored && !evicts) continue;
    const fn = (): Promise<void> => run(options);
    Deno.test({ name: `${module.type} adapter: ${name}`, ignore: isIgnored, fn });
  }
}
