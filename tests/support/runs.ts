/** Parameters of a property test for `fc.assert()`. */
export interface RunParameters {
  /** Number of runs. */
  readonly numRuns: number;
  /** Random seed; different each time if left out. */
  readonly seed?: number;
}

/**
 * Number of runs and seed of a property test: from `--runs N` and `--seed S` among the arguments
 * of the program, from `KVTIER_RUNS` and `KVTIER_SEED`, or `usual` runs with a random seed.
 *
 * @throws {RangeError} If a value is not a number, or the number of runs is 0.
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
