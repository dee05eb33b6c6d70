import { bufferCases } from "./conformance/buffer_cases.ts";
import { concurrencyCases } from "./conformance/concurrency_cases.ts";
import { isolationCases } from "./conformance/isolation_cases.ts";
import { lifetimeCases } from "./conformance/lifetime_cases.ts";
import { lookupCases } from "./conformance/lookup_cases.ts";
import { optionalCases } from "./conformance/optional_cases.ts";
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
  /** Rejects if the adapter does not keep it. */
  run(options: AdapterConformanceOptions): Promise<void>;
}

const subjectCases: readonly SubjectCase[] = [
  ...roundTripCases,
  ...lookupCases,
  ...isolationCases,
  ...bufferCases,
  ...concurrencyCases,
  ...optionalCases,
  ...lifetimeCases,
];

/** Every promise of the adapter contract; see {@linkcode runAdapterConformance}. */
export const adapterConformanceCases: readonly AdapterConformanceCase[] = subjectCases.map(
  ({ name, check }) => ({ name, run: (options) => testSubject(options, check) }),
);

/**
 * Registers one `Deno.test` for each promise of the adapter contract, named
 * `<type> adapter: <promise>`. Optional methods are tested where the adapter has them. Run the
 * tests with sanitizers, so that what an adapter does not release is found.
 */
export function runAdapterConformance(options: AdapterConformanceOptions): void {
  for (const { name, run } of adapterConformanceCases) {
    Deno.test(`${options.module.type} adapter: ${name}`, () => run(options));
  }
}
