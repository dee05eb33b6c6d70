// deno-lint-ignore-file no-console -- a program prints
/**
 * The fs adapter beside LMCache's own `fs_native` (C++) and `fs` (Python) in one run:
 * `deno task bench:lmcache`, with `--help` for the options.
 */
import { join } from "@std/path";
import { checkConfig } from "../../../src/l2/adapter_config.ts";
import { openAdapterRegistry } from "../../../src/known_adapters.ts";
import { KvtierTarget } from "../l2/kvtier_target.ts";
import { measure } from "../l2/measure.ts";
import { allocateBuffers, type Buffers } from "../l2/objects.ts";
import { prime } from "../l2/open_targets.ts";
import { OPERATIONS } from "../l2/row.ts";
import type { Shape } from "../l2/shape.ts";
import { type BenchTarget, temporaryDirectory } from "../l2/target.ts";
import { median } from "../statistics.ts";
import { LmcacheServer } from "./lmcache_server.ts";
import { LmcacheTarget } from "./lmcache_target.ts";
import { type Options, parseOptions, USAGE, UsageError } from "./options.ts";
import { type Row, rowsOf, type Run, table } from "./report.ts";

const NUM_KEYS = 32;
const IN_FLIGHT = 3;
const PROBE = "import lmcache, torch, numba, aiofiles";

Deno.exitCode = await main(Deno.args);

async function main(args: string[]): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options === "help") {
      console.log(USAGE);
      return 0;
    }
    const obstacle = await obstacleOf(options.python);
    if (obstacle !== undefined) {
      console.log(`${obstacle}: nothing was measured. --help says how to install it.`);
      return 0;
    }
    return await run(options);
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    return error instanceof UsageError ? 2 : 1;
  }
}

/** Why LMCache cannot be run here; `undefined` if it can. */
async function obstacleOf(python: string): Promise<string | undefined> {
  try {
    const { success } = await new Deno.Command(python, { args: ["-c", PROBE], stderr: "null" })
      .output();
    return success ? undefined : `${python} has no LMCache`;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return `There is no ${python}, which was to run LMCache`;
  }
}

async function run(options: Options): Promise<number> {
  const rows: Row[] = [];
  const failures: string[] = [];
  const load = Deno.loadavg()[0];
  for (const objectBytes of options.objectBytes) {
    const shape: Shape = { objectBytes, numKeys: NUM_KEYS, inFlight: IN_FLIGHT };
    const count = NUM_KEYS * IN_FLIGHT;
    const buffers = allocateBuffers(count, objectBytes);
    const runs: Run[] = [];
    await using server = await LmcacheServer.start(options.python, count, objectBytes);
    for (let n = 1; n <= options.alternations; n++) {
      console.error(`${count} × ${objectBytes / 1024} KiB, ${n} of ${options.alternations} …`);
      const { samples, failures: found } = await alternate(server, shape, buffers, options);
      failures.push(...found);
      for (const { target, op, how, ms } of samples) {
        runs.push({ target: target.name, op, how, medianMs: median(ms) });
      }
    }
    rows.push(...rowsOf(runs, objectBytes, count));
  }
  if (options.isJson) console.log(JSON.stringify({ loadBefore: load, rows }));
  else console.log(table(rows));
  for (const failure of failures) console.error(failure);
  return failures.length === 0 ? 0 : 1;
}

/** Runs all of them in turn, each opened for this in a fresh directory. */
async function alternate(
  server: LmcacheServer,
  shape: Shape,
  buffers: Buffers,
  { directory, rounds, fsOptions }: Options,
): ReturnType<typeof measure> {
  await using undo = new AsyncDisposableStack();
  const parent = await temporaryDirectory(undo, directory);
  const targets: BenchTarget[] = [];
  for (const type of ["fs_native", "fs"]) {
    targets.push(undo.use(await LmcacheTarget.open(server, type, join(parent, type))));
  }
  const registry = await openAdapterRegistry({});
  const layouts = {
    "kvtier": {},
    "kvtier, lmcache layout": { "file_layout": "lmcache", "accept_unsealed": true },
  };
  for (const [name, layout] of Object.entries(layouts)) {
    const config = { type: "fs", "base_path": join(parent, name), ...layout, ...fsOptions };
    const target = undo.use(await KvtierTarget.open(await checkConfig(registry, config), name));
    await prime(target);
    targets.push(target);
  }
  return await measure(targets, shape, {
    rounds,
    warmupRounds: 1,
    maxHitRate: 1,
    isVerified: true,
    operations: OPERATIONS,
  }, buffers);
}
