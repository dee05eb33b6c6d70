import { parseArgs } from "node:util";
import { join } from "@std/path";

/** What the program is to do. */
export interface Options {
  /** A Python with LMCache. */
  readonly python: string;
  /** Sizes of objects. */
  readonly objectBytes: readonly number[];
  /** How often all are opened anew. */
  readonly alternations: number;
  /** Rounds measured each time. */
  readonly rounds: number;
  /** Where the directories are made; left out, the system's place for temporary files. */
  readonly directory?: string;
  /** Further options of our adapter. */
  readonly fsOptions: Readonly<Record<string, unknown>>;
  /** Whether the results are printed as JSON. */
  readonly isJson: boolean;
}

/** Arguments that the program cannot work with; the message says why. */
export class UsageError extends Error {
  /** The name of the class. */
  override readonly name = "UsageError";
}

const VENV = join(Deno.env.get("HOME") ?? "/opt", ".cache", "kvtier", "lmcache-venv");

/** What the options mean. */
export const USAGE = `The fs adapter beside LMCache's own fs_native (C++) and fs (Python).

Usage: deno task bench:lmcache [options]

  --python FILE       a Python with LMCache (default: KVTIER_LMCACHE_PYTHON, or the environment
                      that is installed as below)
  --size-kb LIST      sizes of objects in KiB (default: 64,1024,2304,4096)
  --alternations N    how often each is opened in a fresh directory (default: 5)
  --rounds N          rounds measured each time, after one to warm up (default: 5)
  --directory PATH    where the directories are made (default: the system's for temporary files)
  --fs JSON           further options of the fs adapter, like {"io_workers":0}
  --json              print JSON
  -h, --help          print this

Each round stores, looks up and loads 96 objects in three calls of 32 and removes them; the page
cache is warm. The result is the median over the alternations of each one's median over its rounds.

To install LMCache (6 GB; no GPU is needed; Python 3.10 to 3.13):

  python3 -m venv ${VENV}
  ${VENV}/bin/pip install lmcache==0.5.6 torch numba aiofiles
`;

/**
 * Reads the program's arguments.
 *
 * @throws {UsageError} If an option is unknown, or its value is none that it takes.
 */
export function parseOptions(args: string[]): Options | "help" {
  const given = parse(args);
  if (given.help) return "help";
  const { directory } = given;
  return {
    python: given.python ?? Deno.env.get("KVTIER_LMCACHE_PYTHON") ?? join(VENV, "bin", "python"),
    objectBytes: given["size-kb"].split(",").map((text) => 1024 * count("size-kb", text)),
    alternations: count("alternations", given.alternations),
    rounds: count("rounds", given.rounds),
    ...(directory === undefined ? {} : { directory }),
    fsOptions: json("fs", given.fs),
    isJson: given.json ?? false,
  };
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        "python": { type: "string" },
        "size-kb": { type: "string", default: "64,1024,2304,4096" },
        "alternations": { type: "string", default: "5" },
        "rounds": { type: "string", default: "5" },
        "directory": { type: "string" },
        "fs": { type: "string", default: "{}" },
        "json": { type: "boolean" },
        "help": { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function count(option: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new UsageError(`--${option}: expected a whole number above 0: received ${text}`);
}

function json(option: string, text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return { ...value };
  } catch {
    // As below.
  }
  throw new UsageError(`--${option}: expected a JSON object: received ${text}`);
}
