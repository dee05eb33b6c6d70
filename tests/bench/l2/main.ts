/**
 * What a storage adapter can do, beside the plainest loop over files and other stores:
 * `deno task bench:l2 [options]`, with `--help` for the options. Medians over rounds in which all
 * take turns; the page cache is warm.
 */
import { ConfigError } from "../../../src/base/config_error.ts";
import { checkConfig, type CheckedConfig, type L2Config } from "../../../src/l2/adapter_config.ts";
import { openAdapterRegistry } from "../../../src/known_adapters.ts";
import { groups } from "./groups.ts";
import { KvtierTarget } from "./kvtier_target.ts";
import { measure } from "./measure.ts";
import { type BenchOptions, parseOptions, USAGE, UsageError } from "./options.ts";
import { header, size, tables } from "./report.ts";
import type { Row } from "./row.ts";
import { CHAIN_SHAPE, limited, type Shape } from "./shape.ts";
import { describeConfig, openTargets } from "./open_targets.ts";
import { summarise } from "./summary.ts";
import { type BenchTarget, temporaryDirectory } from "./target.ts";

const FAILURES_SHOWN = 5;

const encoder = new TextEncoder();

Deno.exitCode = await main(Deno.args);

async function main(args: string[]): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options === "help") {
      print(USAGE);
      return 0;
    }
    await using undo = new AsyncDisposableStack();
    const config = options.adapter ?? { type: "fs", base_path: await temporaryDirectory(undo) };
    return await run(options, await checked(config), undo);
  } catch (error) {
    complain(error instanceof Error ? error.message : String(error));
    return error instanceof UsageError ? 2 : 1;
  }
}

/** Checks an adapter's configuration; one that is wrong is a wrong argument. */
async function checked(config: L2Config): Promise<CheckedConfig> {
  try {
    return await checkConfig(await openAdapterRegistry({}), config);
  } catch (error) {
    throw error instanceof ConfigError ? new UsageError(error.message) : error;
  }
}

/** Measures everything and prints it; returns the exit code. */
async function run(
  options: BenchOptions,
  config: CheckedConfig,
  undo: AsyncDisposableStack,
): Promise<number> {
  const { isQuiet, format, output } = options;
  const hasProgress = !isQuiet && format === "text";
  const head = header(options, describeConfig(config));
  if (hasProgress) print(`${head}\n`);
  const targets = await openTargets(options, config, undo);
  const rows: Row[] = [];
  const failures: string[] = [];
  const add = async (
    shape: Shape,
    chosen: readonly BenchTarget[],
    change: Partial<BenchOptions> = {},
  ): Promise<void> => {
    if (chosen.length === 0) return;
    if (hasProgress) complain(`${shape.numKeys * shape.inFlight} × ${size(shape.objectBytes)} …`);
    const result = await measure(chosen, shape, { ...options, ...change });
    rows.push(...summarise(result.samples, shape));
    failures.push(...result.failures);
  };
  if (options.operations.includes("lookup")) {
    const ours = targets.filter((target) => target instanceof KvtierTarget);
    await add(CHAIN_SHAPE, ours, { maxHitRate: 1, operations: ["lookup"] });
  }
  for (const shape of options.shapes) await add(shape, targets);
  for (const group of options.adapter === undefined ? groups : []) {
    const named = [`kvtier-${group.type}`, `limit-${group.type}`];
    if (!options.targets.some((name) => named.includes(name))) continue;
    const obstacle = await group.obstacle?.();
    if (obstacle !== undefined) {
      complain(`${group.type} is left out: ${obstacle}`);
      continue;
    }
    for (const shape of options.shapes.map((shape) => limited(shape, group.maxRoundBytes))) {
      await using undoGroup = new AsyncDisposableStack();
      const { config, limits } = await group.open(undoGroup, shape);
      const all = [undoGroup.use(await KvtierTarget.open(await checked(config))), ...limits];
      await add(shape, all.filter(({ name }) => options.targets.includes(name)));
    }
  }
  const text = format === "json" ? JSON.stringify({ rows }) : tables(rows);
  if (output === undefined) print(text);
  else await Deno.writeTextFile(output, `${format === "json" ? "" : `${head}\n\n`}${text}\n`);
  if (failures.length === 0) return 0;
  for (const failure of failures.slice(0, FAILURES_SHOWN)) complain(failure);
  if (failures.length > FAILURES_SHOWN) complain(`… and ${failures.length - FAILURES_SHOWN} more`);
  return 1;
}

function print(text: string): void {
  Deno.stdout.writeSync(encoder.encode(`${text}\n`));
}

function complain(text: string): void {
  Deno.stderr.writeSync(encoder.encode(`${text}\n`));
}
