import { untilAborted } from "../base/abort.ts";
import type { L1MemoryDescription } from "../adapter/contract.ts";
import { hasVariableLength } from "../l2/adapter_answers.ts";
import { ConfigError } from "../base/config_error.ts";
import { AdapterError } from "../adapter/errors.ts";
import type { CheckedConfig } from "../l2/adapter_config.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { GuardListener } from "../l2/guard_listener.ts";
import type { AdapterState, AdapterTimeouts } from "../l2/adapter_status.ts";
import type { AdapterRegistry } from "../l2/adapter_registry.ts";
import type { BreakerOptions } from "../l2/circuit_breaker.ts";
import { openGuarded } from "../l2/open_adapter.ts";
import type { StagingPool } from "../memory/staging_pool.ts";
import { abortAfter, type Clock } from "../base/clock.ts";
import { type OptionRules, readOptions, STRING } from "../base/options.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { EvictionController } from "../eviction/eviction_controller.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import { migrate, type MigrationReport } from "./migration.ts";
import type { StoreController } from "../store/store_controller.ts";

const REMOVE_MS = 30_000;
const MODES = ["drain", "migrate", "drop"];
const removeRules: OptionRules<RemoveAdapterOptions> = {
  mode: STRING,
  timeoutMs: { type: "number", minimum: 0 },
};

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
  readonly scratch: StagingPool<Uint8Array>;
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
    const { registry, clock, timeouts, breaker, adapters, l1Memory, listenerOf } = this.#options;
    const { guard, eviction } = await openGuarded(checked, {
      registry,
      id: this.#nextId++,
      clock,
      timeouts,
      breaker,
      l1Memory: l1Memory(),
      signal: this.#closing.signal,
      stop: this.#stopping.signal,
    });
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
    const { adapters, store, eviction, clock, onRemoved } = this.#options;
    let report = { copiedObjects: 0, copiedBytes: 0, presentObjects: 0, failedObjects: 0 };
    const message =
      `Not removed within ${timeoutMs} ms: call again to continue, or use mode "drop"`;
    try {
      using timeout = abortAfter(clock, timeoutMs, new DOMException(message, "TimeoutError"));
      const signal = AbortSignal.any([timeout.signal, this.#stopping.signal]);
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
}
