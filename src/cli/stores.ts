import { ConfigError, failFor } from "../base/config_error.ts";
import { MAX_GIB } from "../base/units.ts";
import { AdapterError } from "../adapter/errors.ts";
import { hasVariableLength } from "../l2/adapter_answers.ts";
import { checkConfig, type L2Config } from "../l2/adapter_config.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { AdapterRegistry } from "../l2/adapter_registry.ts";
import { type GuardedAdapter, openGuarded } from "../l2/open_adapter.ts";
import { openAdapterRegistry } from "../known_adapters.ts";
import { type CommandArgs, type CommandContext, CommandError } from "./command.ts";
import { readL2Config } from "./l2_config.ts";
import { askForAdapter, pathsIn } from "./permissions.ts";

const fail = failFor("kvtier");

/** What a command found out about one adapter. */
export interface StoreReport {
  /** Whether the answer is yes. */
  readonly isSuccess: boolean;
  /** Fields of the JSON document. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** The adapter types that a command can use. */
export async function registryFor({ values }: CommandArgs): Promise<AdapterRegistry> {
  const { "adapters-dir": adaptersDir } = values;
  return await openAdapterRegistry(adaptersDir === undefined ? {} : { adaptersDir });
}

/** How a command uses an adapter. */
export interface StoreUse {
  /** Whether the limits of the configuration apply: opening may then evict objects. */
  readonly keepsLimits?: boolean;
  /** Whether removals are credited to the capacity that processes share. */
  readonly removes?: boolean;
  /** Whether the adapter may create its directory. */
  readonly canCreate?: boolean;
}

/**
 * Opens an adapter for a command. It evicts nothing unless `keepsLimits`, because a configuration
 * typed for a question may lack the limits of the cache's.
 *
 * @throws {ConfigError} If its configuration is not valid.
 */
export async function openStore(
  args: CommandArgs,
  { host }: CommandContext,
  config: L2Config,
  { keepsLimits = false, removes = false, canCreate = false }: StoreUse = {},
): Promise<GuardedAdapter> {
  const registry = await registryFor(args);
  // A command waits for each batch, so that threads would only take memory.
  const own = config.type === "fs" ? { "io_workers": 0, ...config } : config;
  const checked = await checkConfig(registry, keepsLimits ? own : withoutLimits(own, removes));
  await askForAdapter(config);
  if (!canCreate) { for (const each of pathsIn(config)) await checkPath(each); }
  const { clock, timeouts, signal } = host;
  return await openGuarded(checked, { registry, clock, timeouts, stop: signal });
}

/**
 * Runs `work` on each configured adapter, and reports what it found out. An adapter that fails does
 * not stop the others.
 *
 * @returns Whether all succeeded.
 */
export async function forEachStore(
  args: CommandArgs,
  context: CommandContext,
  work: (guard: AdapterGuard, config: L2Config, index: number) => Promise<StoreReport>,
  use?: StoreUse,
): Promise<boolean> {
  const { out, host: { signal } } = context;
  const configs = await readL2Config(args.raw);
  // All are checked before the first one is used.
  const registry = await registryFor(args);
  for (const config of configs) {
    await checkConfig(registry, config);
    if (!use?.canCreate) { for (const each of pathsIn(config)) await checkPath(each); }
  }
  const adapters: Readonly<Record<string, unknown>>[] = [];
  let isSuccess = true;
  for (const [index, config] of configs.entries()) {
    const { type } = config;
    if (configs.length > 1) out.print(`Adapter ${type}:`);
    try {
      await using store = await openStore(args, context, config, use);
      const report = await work(store.guard, config, index);
      adapters.push({ type, ...report.fields });
      isSuccess &&= report.isSuccess;
    } catch (error) {
      if (!(error instanceof AdapterError) && !(error instanceof CommandError)) throw error;
      out.note(error.message);
      adapters.push({ type, error: error.message });
      isSuccess = false;
    }
    signal.throwIfAborted();
    out.json({ adapters });
  }
  return isSuccess;
}

/**
 * Checks that an adapter can list its objects.
 *
 * @throws {ConfigError} If not.
 */
export function checkCanList(command: string, guard: AdapterGuard): void {
  if (guard.canList) return;
  const expected = "an adapter that supports listing";
  throw new ConfigError({ subject: `kvtier ${command}`, expected, received: guard.type });
}

/**
 * Checks that an adapter can delete objects.
 *
 * @throws {ConfigError} If not.
 */
export function checkCanDelete(command: string, guard: AdapterGuard): void {
  if (guard.canDelete) return;
  const expected = "an adapter that can delete";
  throw new ConfigError({ subject: `kvtier ${command}`, expected, received: guard.type });
}

/**
 * Checks that the objects of an adapter can be read and verified without their layout.
 *
 * @throws {ConfigError} If not.
 */
export function checkCanVerify(command: string, guard: AdapterGuard): void {
  checkCanList(command, guard);
  const expected = guard.capabilities.unsealed
    ? "an adapter whose objects have trailers, not one in LMCache's format"
    : hasVariableLength(guard.capabilities)
    ? "an adapter whose listing shows the length of objects, not one that compresses them"
    : undefined;
  if (expected === undefined) return;
  throw new ConfigError({ subject: `kvtier ${command}`, expected, received: guard.type });
}

/** The last failure of an adapter, in words. */
export function lastErrorOf(guard: AdapterGuard): string {
  return guard.lastError ?? `${guard.type}: the adapter does not respond`;
}

/**
 * A configuration with which an adapter evicts nothing by itself. Without `removes`, the fs adapter
 * does not record reads as uses either, so that verifying a store does not make all of it recent.
 */
function withoutLimits(config: L2Config, removes: boolean): L2Config {
  const { type } = config;
  if (type === "fs") {
    const { disk_high_watermark: _high, disk_min_free_gb: _free, ...rest } = config;
    const limits = removes ? { "max_capacity_gb": MAX_GIB, "disk_min_free_gb": 0 } : {
      "max_capacity_gb": 0,
    };
    return { ...rest, ...limits, "recover_on_start": false };
  }
  if (type === "resp" || type === "s3") {
    const { max_capacity_gb: _capacity, eviction: _eviction, ...rest } = config;
    return { ...rest, type };
  }
  if (type === "connector") return { ...config, "max_capacity_gb": 0 };
  const { inner } = config;
  const isWrapper = typeof inner === "object" && inner !== null && "type" in inner &&
    typeof inner.type === "string";
  return isWrapper
    ? { ...config, inner: withoutLimits({ ...inner, type: inner.type as string }, removes) }
    : config;
}

/** Rejects a path that does not exist: the adapter would create a directory for a mistyped one. */
async function checkPath({ key, path }: { readonly key: string; readonly path: string }) {
  try {
    await Deno.stat(path);
  } catch (error) {
    // Other errors, such as missing permissions, are left for the adapter to report.
    if (error instanceof Deno.errors.NotFound) fail(key, "a directory that exists", path);
  }
}
