/** How often a property is tried: `KVTIER_RUNS` if that is set, else `usual`. */
export function numRuns(usual: number): { numRuns: number } {
  return { numRuns: Number(Deno.env.get("KVTIER_RUNS") ?? usual) };
}
