/** How a property is tried: what `fc.assert()` takes. */
export interface RunParameters {
  /** How often. */
  readonly numRuns: number;
  /** Where the random numbers start; left out, somewhere else each time. */
  readonly seed?: number;
}

/**
 * How often a property is tried, and from which seed: `--runs N` and `--seed S` among the arguments
 * of the program, else `KVTIER_RUNS` and `KVTIER_SEED`, else `usual` times from a random seed.
 *
 * @throws {RangeError} If a number is none, or there are to be no runs.
 */
export function runs(usual: number): RunParameters {
  const seed = parameter("seed");
  const count = parameter("runs") ?? usual;
  if (count < 1) throw new RangeError(`runs must be at least 1: received ${count}`);
  return { numRuns: count, ...(seed === undefined ? {} : { seed }) };
}

function parameter(name: "runs" | "seed"): number | undefined {
  const index = Deno.args.indexOf(`--${name}`);
  const text = index < 0
    ? Deno.env.get(`KVTIER_${name.toUpperCase()}`)
    : Deno.args[index + 1] ?? "";
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? NaN : Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`${name} must be an integer: received ${JSON.stringify(text)}`);
  }
  return value;
}
