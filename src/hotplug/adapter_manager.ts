import { untilAborted } from "../base/abort.ts";
import type {
  AdapterEnvironment,
  L1MemoryDescription,
  L2Adapter,
  L2AdapterModule,
} from "../adapter/contract.ts";
import { hasVariableLength } from "../l2/adapter_answers.ts";
import { parseAdapterConfig } from "../adapter/config.ts";
import { ConfigError } from "../base/config_error.ts";
import { AdapterError } from "../adapter/errors.ts";
import type { AdapterGuard, GuardListener } from "../l2/adapter_guard.ts";
import type { AdapterState, AdapterTimeouts } from "../l2/adapter_status.ts";
import type { AdapterRegistry } from "../l2/adapter_registry.ts";
import type { BreakerOptions } from "../l2/circuit_breaker.ts";
import { openGuarded } from "../l2/open_guarded.ts";
import { transformedModule } from "../l2/transforms/transformed_module.ts";
import { withOpen } from "../l2/open_inner.ts";
import type { StagingPool } from "../memory/staging_pool.ts";
import { abortAfter, type Clock, type TimeLimit } from "../base/clock.ts";
import { nearestName, type OptionRules, readOptions, STRING } from "../base/options.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { AdapterEviction, EvictionController } from "../eviction/eviction_controller.ts";
import { parseEviction } from "../eviction/eviction_config.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import { migrate, type MigrationReport } from "./migration.ts";
import type { StoreController } from "../store/store_controller.ts";

/** Deadline for opening an adapter, in milliseconds. */
const OPEN_MS = 30_000;
const REMOVE_MS = 30_000;
const MODES = ["drain", "migrate", "drop"];
const removeRules: OptionRules<RemoveAdapterOptions> = {
  mode: STRING,
  timeoutMs: { type: "number", minimum: 0 },
};
/** Keys handled by the cache, unless an adapter declares them itself. */
const CACHE_KEYS = ["eviction", "serde"];

/** Configuration of a storage adapter: its type and the keys that the type declares. */
export interface L2Config {
  /** Type of the adapter. */
  readonly type: string;
  /** Capacity and eviction, unless the adapter handles them itself; see docs/adapters.md. */
  readonly eviction?: unknown;
  /** Transforms of the stored bytes; see docs/transforms.md. */
  readonly serde?: unknown;
  /** Keys that the type declares. */
  readonly [key: string]: unknown;
}

/** An adapter of a cache. */
export interface AdapterInfo {
  /** Id of the adapter; never reused. */
  readonly id: number;
  /** Type of the adapter. */
  readonly type: string;
  /** Life-cycle state. */
  readonly state: AdapterState;
  /** Whether it has no problems. */
  readonly isHealthy: boolean;
}

/** Options of `removeAdapter`. */
export interface RemoveAdapterOptions {
  /**
   * How to remove the adapter:
   *
   * - `drain`: it gets no new objects, and is closed when it is no longer in use.
   * - `migrate`: its objects are first copied to the other adapters; it serves matches meanwhile.
   * - `drop`: it is closed at once; loads in flight miss, or are served by another adapter.
   *
   * @default {"drain"}
   */
  readonly mode?: "drain" | "migrate" | "drop";
  /**
   * Deadline in milliseconds. When it passes, the call fails; the adapter remains partly removed,
   * and the call can be repeated.
   *
   * @default {30000}
   */
  readonly timeoutMs?: number;
}

/** Result of `removeAdapter`; all zero unless the mode was `migrate`. */
export type RemoveAdapterReport = MigrationReport;

/** Options of {@linkcode AdapterManager}. */
export interface AdapterManagerOptions {
  /** Known adapter types. */
  readonly registry: AdapterRegistry;
  readonly adapters: AdapterSet;
  readonly store: StoreController;
  /** Controller that enforces their limits. */
  readonly eviction: EvictionController;
  /** Host memory for migrations. */
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  readonly clock: Clock;
  /** Deadlines of adapter calls. */
  readonly timeouts: AdapterTimeouts;
  /** When a failing operation is paused. */
  readonly breaker: Partial<BreakerOptions>;
  readonly l1Memory: () => L1MemoryDescription;
  /** Blocks objects that are being forgotten. */
  readonly barrier: ForgetBarrier;
  readonly listenerOf: (guard: AdapterGuard) => GuardListener;
  /** Called after an adapter has been removed. */
  readonly onRemoved: (guard: AdapterGuard) => void;
}

/** A validated configuration. */
export interface CheckedConfig {
  readonly module: L2AdapterModule;
  /** Values passed to the adapter. */
  readonly values: Record<string, never>;
  /** Limits that the cache enforces on it. */
  readonly eviction: AdapterEviction | undefined;
}

/** Opens, lists and removes adapters while the cache is in use. */
export class AdapterManager {
  readonly #options: AdapterManagerOptions;
  readonly #stopping = new AbortController();
  readonly #closing = new AbortController();
  /** Removals and migrations in progress. */
  readonly #running = new Set<Promise<unknown>>();
  /** Adapters whose removal failed, with the reason. */
  readonly #stuck = new Map<AdapterGuard, string>();
  #nextId = 0;

  /** Creates a manager without adapters. */
  constructor(options: AdapterManagerOptions) {
    this.#options = options;
  }

  /**
   * Opens an adapter and appends it to the set.
   *
   * @returns Its id.
   * @throws {ConfigError} If its configuration is not valid.
   * @throws {AdapterError} If it does not open in time.
   */
  async add(checked: CheckedConfig): Promise<number> {
    const { module, values, eviction } = checked;
    const { registry, clock, timeouts, breaker, adapters, l1Memory, listenerOf } = this.#options;
    const guard = await openGuarded(
      (reports) =>
        this.#open(
          module,
          values,
          withOpen(registry, {
            clock,
            signal: this.#closing.signal,
            l1Memory: l1Memory(),
            ...reports,
          }),
        ),
      { id: this.#nextId++, type: module.type, clock, timeouts, breaker },
    );
    if (this.#stopping.signal.aborted) {
      await guard.close();
      throw this.#stopping.signal.reason;
    }
    guard.addListener(listenerOf(guard));
    this.#options.eviction.attach(guard, eviction);
    adapters.add(guard);
    return guard.id;
  }

  /**
   * Removes an adapter.
   *
   * @throws {TypeError} If an option is unknown or has the wrong type.
   * @throws {RangeError} If no adapter has that id, or `timeoutMs` is negative.
   * @throws {ConfigError} If the mode is unknown, or its objects cannot be migrated.
   * @throws {AdapterError} If the deadline passes, or objects could not be migrated.
   */
  async remove(id: number, options: RemoveAdapterOptions = {}): Promise<RemoveAdapterReport> {
    const { adapters } = this.#options;
    const { mode = "drain", timeoutMs = REMOVE_MS } = readOptions(
      "removeAdapter() options",
      options,
      removeRules,
    );
    const guard = adapters.get(id);
    if (guard === undefined) {
      const ids = adapters.all.map((other) => other.id).join(", ");
      throw new RangeError(
        `No adapter has id ${id}: ${ids === "" ? "there are no adapters" : `the ids are ${ids}`}`,
      );
    }
    this.#checkRemoval(guard, mode);
    this.#stuck.delete(guard);
    return await this.#track(this.#remove(guard, mode, timeoutMs));
  }

  async #remove(
    guard: AdapterGuard,
    mode: NonNullable<RemoveAdapterOptions["mode"]>,
    timeoutMs: number,
  ): Promise<RemoveAdapterReport> {
    const { adapters, store, eviction, onRemoved } = this.#options;
    let report = { copiedObjects: 0, copiedBytes: 0, presentObjects: 0, failedObjects: 0 };
    const message =
      `Not removed within ${timeoutMs} ms: call again to continue, or use mode "drop"`;
    try {
      using deadline = this.#deadline(timeoutMs, message);
      const { signal } = deadline;
      adapters.retire(guard);
      if (mode !== "drop") await untilAborted(signal, store.emptied(guard));
      if (mode === "migrate") {
        report = await untilAborted(signal, this.#track(this.#migrate(guard, signal)));
      }
      guard.drain();
      if (mode !== "drop") await guard.idle(signal);
    } catch (cause) {
      const error = new AdapterError({ adapter: guard.type, operation: "remove", cause });
      if (adapters.get(guard.id) === guard) this.#stuck.set(guard, error.message);
      throw error;
    }
    eviction.detach(guard);
    this.#stuck.delete(guard);
    // Objects still queued for it are dropped.
    if (adapters.remove(guard)) onRemoved(guard);
    await guard.close();
    return report;
  }

  async #migrate(guard: AdapterGuard, signal: AbortSignal): Promise<RemoveAdapterReport> {
    const { adapters, scratch, barrier } = this.#options;
    guard.migrate();
    const to = (): readonly AdapterGuard[] => adapters.storing;
    const report = await migrate({ from: guard, to, scratch, signal, barrier });
    if (report.failedObjects === 0) return report;
    throw new Error(
      `${report.failedObjects} objects could not be copied: call again, or use mode "drain"`,
    );
  }

  /** Problems of adapters whose removal failed, as sentences. */
  problems(): string[] {
    return [...this.#stuck].map(([{ id, type }, problem]) => `adapter ${id} (${type}): ${problem}`);
  }

  /** Adapters in order of preference. */
  list(): AdapterInfo[] {
    return this.#options.adapters.all.map((guard) => {
      const { id, type, state, isHealthy } = guard.reportStatus();
      return { id, type, state, isHealthy };
    });
  }

  /** Aborts opening and removing; the adapters in use keep working. */
  stop(): void {
    this.#stopping.abort(new Error("Cache is closed: open a new one"));
  }

  /** Closes all adapters, waiting at most `ms` milliseconds for each. */
  async close(ms = Infinity): Promise<void> {
    this.stop();
    this.#closing.abort();
    await Promise.all(this.#options.adapters.all.map((guard) => guard.close(ms)));
    await Promise.allSettled(this.#running);
  }

  /** Keeps track of work until it has ended. */
  #track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    const ended = (): void => void this.#running.delete(work);
    work.then(ended, ended);
    return work;
  }

  #checkRemoval(guard: AdapterGuard, mode: string): void {
    const expected = MODES.includes(mode)
      ? mode === "migrate" ? this.#whyNoMigration(guard) : undefined
      : MODES.map((known) => `"${known}"`).join(", ");
    if (expected === undefined) return;
    const adapter = `removeAdapter(${guard.id})`;
    throw new ConfigError({ subject: adapter, key: "mode", expected, received: mode });
  }

  #whyNoMigration(guard: AdapterGuard): string | undefined {
    const instead = `"drain" or "drop", because`;
    if (guard.capabilities.unsealed) {
      return `${instead} the objects of this ${guard.type} adapter have no trailers that identify them`;
    }
    if (hasVariableLength(guard.capabilities)) {
      return `${instead} a listing does not show the uncompressed length of objects`;
    }
    if (!guard.canList) return `${instead} a ${guard.type} adapter cannot list its objects`;
    if (!guard.takesLookups) return `${instead} the adapter is already being drained`;
    if (this.#options.adapters.storing.some((other) => other !== guard)) return undefined;
    return `${instead} there is no other adapter to copy to`;
  }

  /** Starts a time limit; its signal also aborts when the cache is closed. */
  #deadline(ms: number, message: string): TimeLimit {
    const { clock } = this.#options;
    const timeout = abortAfter(clock, ms, new DOMException(message, "TimeoutError"));
    return {
      signal: AbortSignal.any([timeout.signal, this.#stopping.signal]),
      [Symbol.dispose]: () => timeout[Symbol.dispose](),
    };
  }

  async #open(
    module: L2AdapterModule,
    values: Record<string, never>,
    environment: AdapterEnvironment,
  ): Promise<L2Adapter> {
    using deadline = this.#deadline(OPEN_MS, `Not open within ${OPEN_MS} ms`);
    const opening = (async () => await module.create(values, environment))();
    try {
      return await untilAborted(deadline.signal, opening);
    } catch (cause) {
      // An adapter that opens after the deadline has no owner, so it is closed here.
      opening.then((adapter) => adapter[Symbol.asyncDispose]()).catch(() => {});
      if (cause !== deadline.signal.reason) throw cause;
      throw new AdapterError({ adapter: module.type, operation: "open", cause });
    }
  }
}

/**
 * Resolves the module of a configuration and validates its values.
 *
 * @param adapter Subject of error messages while the type is unknown.
 * @throws {ConfigError} If the type is unknown or a value is not valid.
 */
export async function checkConfig(
  registry: AdapterRegistry,
  config: L2Config,
  adapter = "adapter configuration",
): Promise<CheckedConfig> {
  const given: unknown = config;
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    const expected = 'an object, like { type: "fs", base_path: "/data/kv" }';
    throw new ConfigError({ subject: adapter, expected, received: given, hidden: true });
  }
  if (typeof config.type !== "string") {
    const meant = Object.keys(given).find((key) => nearestName(key, ["type"]) !== undefined);
    const hint = meant === undefined || meant === "type"
      ? ""
      : ` (did you mean "type" instead of "${meant}"?)`;
    const expected = `the name of an adapter type, as a string${hint}`;
    const received = "type" in given ? given.type : given;
    throw new ConfigError({ subject: adapter, key: "type", expected, received, hidden: true });
  }
  const module = await registry.resolve(config.type);
  const isOwn = (key: string): boolean => key in module.config || !CACHE_KEYS.includes(key);
  const own = Object.fromEntries(Object.entries(config).filter(([key]) => isOwn(key)));
  const eviction = isOwn("eviction") ? undefined : config.eviction;
  const serde = isOwn("serde") ? undefined : config.serde;
  return {
    module: serde === undefined ? module : transformedModule(module, serde),
    // The values have the types that this module declares.
    values: parseAdapterConfig(module, own) as Record<string, never>,
    eviction: eviction === undefined ? undefined : parseEviction(config.type, eviction),
  };
}
