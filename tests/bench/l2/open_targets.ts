import { join } from "@std/path";
import type { CheckedConfig } from "../../../src/l2/adapter_config.ts";
import { openCacacheTarget } from "./cacache_target.ts";
import { KvtierTarget } from "./kvtier_target.ts";
import { allocateBuffers, keysOf } from "./objects.ts";
import type { BenchOptions } from "./options.ts";
import { PLAIN_CONCURRENCIES, PlainTarget } from "./plain_target.ts";
import { type BenchTarget, temporaryDirectory } from "./target.ts";
import { openUnstorageTarget } from "./unstorage_target.ts";

/** So many objects leave hardly one of 256 directories unmade. */
const PRIMING_OBJECTS = 2_048;

/** Opens what is measured, on one file system; `undo` closes it and removes what it kept. */
export async function openTargets(
  options: BenchOptions,
  config: CheckedConfig,
  undo: AsyncDisposableStack,
): Promise<BenchTarget[]> {
  const targets: BenchTarget[] = [];
  const isNamed = (name: string): boolean => options.targets.includes(name);
  if (isNamed(`kvtier-${config.module.type}`)) {
    const target = undo.use(await KvtierTarget.open(config));
    if (config.module.type === "fs") await prime(target);
    targets.push(target);
  }
  const directory = await temporaryDirectory(undo, basePathOf(config));
  const directoryOf = async (name: string): Promise<string> => {
    const path = join(directory, name);
    await Deno.mkdir(path);
    return path;
  };
  if (isNamed("limit")) {
    const path = await directoryOf("limit");
    for (const concurrency of PLAIN_CONCURRENCIES) targets.push(new PlainTarget(path, concurrency));
  }
  if (isNamed("limit-aligned")) {
    const path = await directoryOf("limit-aligned");
    for (const concurrency of PLAIN_CONCURRENCIES) {
      targets.push(
        new PlainTarget(path, concurrency, { name: "limit-aligned", buffers: "aligned" }),
      );
    }
  }
  if (isNamed("cacache")) {
    targets.push(undo.use(await openCacacheTarget(await directoryOf("cacache"))));
  }
  if (isNamed("unstorage")) {
    targets.push(undo.use(await openUnstorageTarget(await directoryOf("unstorage"))));
  }
  return targets;
}

/** An adapter in a few words. Nothing of its configuration but a path: there may be secrets. */
export function describeConfig(config: CheckedConfig): string {
  const path = basePathOf(config);
  return path === undefined ? config.module.type : `${config.module.type} in ${path}`;
}

function basePathOf({ values }: CheckedConfig): string | undefined {
  const path: unknown = values.base_path;
  return typeof path === "string" ? path : undefined;
}

/** A directory that has been in use for a while has all of its sub-directories. */
export async function prime(target: BenchTarget): Promise<void> {
  const round = {
    buffers: allocateBuffers(PRIMING_OBJECTS, 4),
    keys: keysOf(crypto.randomUUID(), PRIMING_OBJECTS),
    lookups: [],
    inFlight: 1,
  };
  await target.store(round);
  await target.clear(round);
}
