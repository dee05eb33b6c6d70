import { parseArgs } from "node:util";
import { groups } from "./groups.ts";
import { type Operation, OPERATIONS } from "./row.ts";
import { oneSize, type Shape, sweep } from "./shape.ts";

/** What the program is to do. */
export interface BenchOptions {
  /** Configuration of the adapter; left out, `fs` in a new directory. */
  readonly adapter?: Readonly<Record<string, unknown>> & { readonly type: string };
  /** What is moved. */
  readonly shapes: readonly Shape[];
  /** Rounds measured. */
  readonly rounds: number;
  /** Rounds before that. */
  readonly warmupRounds: number;
  /** Share of the keys looked up that are there. */
  readonly maxHitRate: number;
  /** Whether loaded bytes are compared with those stored. */
  readonly isVerified: boolean;
  /** What is measured. */
  readonly operations: readonly Operation[];
  /** Names of the targets. */
  readonly targets: readonly string[];
  /** Whether nothing but the results is printed. */
  readonly isQuiet: boolean;
  /** How the results are printed. */
  readonly format: "text" | "json";
  /** Where they are written; left out, standard output. */
  readonly output?: string;
}

/** Arguments that the program cannot work with; the message says why. */
export class UsageError extends Error {
  /** The name of the class. */
  override readonly name = "UsageError";
}

/** What the options mean. */
export const USAGE = `What a storage adapter can do, beside the plainest loop over files.

Usage: deno task bench:l2 [options]

  --l2-adapter JSON            the adapter, as in the cache's l2 option; if repeated, the first
                               counts (default: fs in a new directory)
  --targets LIST               of kvtier-TYPE, limit, cacache, unstorage, and without
                               --l2-adapter kvtier-TYPE and limit-TYPE of dram, file_pool,
                               connector, resp and s3 (default: these), limit-aligned (the limit with the cache's
                               buffers for loads)
  --num-keys N                 keys a call (default: 32)
  --in-flight N                calls in flight together (default: 1)
  --data-size-kb N             size of an object in KiB; left out, 64 KiB to 16 MiB, and unless
                               the options above are given 32 keys in 3 calls, fewer of the largest
  --l1-align-bytes N           sizes must be multiples of this (default: 1)
  --rounds N                   rounds measured (default: 7)
  --warmup-rounds N            rounds before that (default: 1)
  --lookup-max-hit-rate SHARE  share of the keys looked up that are there (default: 0.0)
  --[no-]skip-verify           do not compare what the last round loaded (default: skip)
  --only OPERATION             store, lookup or load; what it needs is not measured
  -q                           print nothing but the results
  --format FORMAT, --json      text or json (default: text)
  --output FILE                write the results to a file
  -h, --help                   print this
`;

const OPTIONS = {
  "l2-adapter": { type: "string", multiple: true },
  "targets": { type: "string" },
  "num-keys": { type: "string" },
  "in-flight": { type: "string" },
  "data-size-kb": { type: "string" },
  "l1-align-bytes": { type: "string" },
  "rounds": { type: "string" },
  "warmup-rounds": { type: "string" },
  "lookup-max-hit-rate": { type: "string" },
  "skip-verify": { type: "boolean" },
  "only": { type: "string" },
  "quiet": { type: "boolean", short: "q" },
  "format": { type: "string" },
  "json": { type: "boolean" },
  "output": { type: "string" },
  "help": { type: "boolean", short: "h" },
} as const;

/**
 * Reads the program's arguments.
 *
 * @returns What to do; `"help"` if that is asked for.
 * @throws {UsageError} If an option is unknown, or its value is none that it takes.
 */
export function parseOptions(args: string[]): BenchOptions | "help" {
  const given = parse(args);
  if (given.help) return "help";
  const adapter = parseAdapter(given["l2-adapter"]?.[0]);
  const numKeys = integer("num-keys", given["num-keys"], 1);
  const inFlight = integer("in-flight", given["in-flight"], 1);
  const sizeKb = integer("data-size-kb", given["data-size-kb"], 1);
  const shapes = sizeKb === undefined
    ? sweep(numKeys, inFlight)
    : oneSize(sizeKb * 1024, numKeys, inFlight);
  const alignBytes = integer("l1-align-bytes", given["l1-align-bytes"], 1) ?? 1;
  const misaligned = shapes.find(({ objectBytes }) => objectBytes % alignBytes !== 0);
  if (misaligned !== undefined) {
    fail("l1-align-bytes", `a divisor of ${misaligned.objectBytes} bytes`, alignBytes);
  }
  const only = given.only === undefined ? undefined : oneOf("only", given.only, OPERATIONS);
  const isVerified = given["skip-verify"] === false;
  if (isVerified && only !== undefined) {
    throw new UsageError("--no-skip-verify needs store and load: leave --only out");
  }
  const format = oneOf("format", given.format ?? (given.json ? "json" : "text"), ["text", "json"]);
  const { output } = given;
  return {
    ...(adapter === undefined ? {} : { adapter }),
    shapes,
    rounds: integer("rounds", given.rounds, 1) ?? 7,
    warmupRounds: integer("warmup-rounds", given["warmup-rounds"], 0) ?? 1,
    maxHitRate: share("lookup-max-hit-rate", given["lookup-max-hit-rate"]) ?? 0,
    isVerified,
    operations: only === undefined ? OPERATIONS : [only],
    targets: parseTargets(given.targets, adapter?.type),
    isQuiet: given.quiet ?? false,
    format,
    ...(output === undefined ? {} : { output }),
  };
}

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, strict: true, allowNegative: true }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function parseAdapter(text: string | undefined): BenchOptions["adapter"] {
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    fail("l2-adapter", "JSON", text);
  }
  if (!isAdapter(value)) fail("l2-adapter", 'an object with a string "type"', text);
  return value;
}

function isAdapter(value: unknown): value is NonNullable<BenchOptions["adapter"]> {
  return typeof value === "object" && value !== null && "type" in value &&
    typeof value.type === "string";
}

function parseTargets(text: string | undefined, type: string | undefined): readonly string[] {
  const ofGroups = groups.flatMap((group) => [`kvtier-${group.type}`, `limit-${group.type}`]);
  const usual = [
    ...[`kvtier-${type ?? "fs"}`, "limit", "cacache", "unstorage"],
    ...type === undefined ? ofGroups : [],
  ];
  const known = [...usual, "limit-aligned"];
  const named = text?.split(",").map((name) => oneOf("targets", name.trim(), known));
  return named === undefined ? usual : known.filter((name) => named.includes(name));
}

function integer(option: string, text: string | undefined, least: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(value) && value >= least) return value;
  return fail(option, `an integer from ${least} on`, text);
}

function share(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? NaN : Number(text);
  return value >= 0 && value <= 1 ? value : fail(option, "a number from 0 to 1", text);
}

function oneOf<const T extends string>(option: string, text: string, known: readonly T[]): T {
  return known.find((name) => name === text) ?? fail(option, `one of ${known.join(", ")}`, text);
}

function fail(option: string, expected: string, received: unknown): never {
  throw new UsageError(`--${option}: expected ${expected}: received ${JSON.stringify(received)}`);
}
