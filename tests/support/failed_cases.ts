import { adapterConformanceCases, type AdapterConformanceOptions } from "../../src/testing/mod.ts";
import { mapAdapter, moduleOf } from "./adapters.ts";

/** What a conformance suite is told of an adapter that a test has broken. */
export type BrokenOptions = Partial<AdapterConformanceOptions>;

/** What is wrong, the promises that this breaks, and the adapter. */
export type Broken = readonly [what: string, promises: readonly string[], options: BrokenOptions];

/** The cases that an adapter fails, sorted. */
export async function failedCases(
  options: BrokenOptions,
  isAsked: (name: string) => boolean = () => true,
): Promise<string[]> {
  const { module = moduleOf(() => mapAdapter()), config = () => ({ config: {} }) } = options;
  const failed: string[] = [];
  for (const { name, run } of adapterConformanceCases) {
    if (!isAsked(name)) continue;
    await run({ ...options, module, config }).catch(() => failed.push(name));
  }
  return failed.sort();
}
