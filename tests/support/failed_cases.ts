import { adapterConformanceCases, type AdapterConformanceOptions } from "../../src/testing/mod.ts";
import { mapAdapter, moduleOf } from "./adapters.ts";

/** Conformance options of a deliberately broken adapter. */
export type BrokenOptions = Partial<AdapterConformanceOptions>;

/** Description of the defect, the cases that must fail, and the adapter. */
export type Broken = readonly [what: string, promises: readonly string[], options: BrokenOptions];

/** The names of the failed cases, sorted. */
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
