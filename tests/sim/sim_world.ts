import type { TieredCacheOptions } from "../../src/cache_options.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { defineL2Adapter, type L2AdapterModule } from "../../src/adapter/contract.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";
import type { CacheEvents } from "../../src/telemetry/events.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { SimAdapter } from "./sim_adapter.ts";
import { SimBuffers } from "./sim_buffers.ts";
import { SimClock, type SimClockView } from "./sim_clock.ts";
import { SimDevice } from "./sim_device.ts";
import { FaultPhases } from "./sim_faults.ts";
import { cacheOptions, configOf, KINDS } from "./sim_kinds.ts";
import { SimOracle } from "./sim_oracle.ts";
import type { SimRandom } from "./sim_random.ts";
import { checkStatus } from "./sim_status.ts";
import { SimStore } from "./sim_store.ts";
import { SimTrace } from "./sim_trace.ts";

/** Events that are recorded with all of their details. */
const PLAIN_EVENTS = [
  "stored",
  "loaded",
  "deleted",
  "dropped",
  "deadline",
  "adapteradded",
  "adapterchanged",
  "adapterremoved",
  "devicelost",
  "deviceattached",
] as const;

/** Error of a simulation: what is wrong, when, and how to reproduce it. */
export class SimError extends Error {
  override readonly name = "SimError";
}

/** A cache and its adapters, from opening to closing. */
export interface Life {
  readonly cache: TieredCache;
  device: SimDevice;
  /** Clock of the cache. */
  readonly clock: SimClockView;
  /** The adapters that are open, by their stores. */
  readonly adapters: Map<SimStore, SimAdapter>;
  /** Whether calls may be rejected because the cache is being closed. */
  isClosing: boolean;
}

/** Options of a {@linkcode SimWorld}. */
export interface SimWorldOptions {
  readonly random: SimRandom;
  /** Describes how to reproduce a failure. */
  readonly replay: string;
  readonly print?: (line: string) => void;
}

/** Lasting state of a simulation: time, stores, the cache, and what is known of it. */
export class SimWorld {
  readonly clock = new SimClock();
  readonly trace: SimTrace;
  readonly oracle = new SimOracle();
  readonly stores: readonly SimStore[];
  /** The stores in use, by the ids of their adapters. */
  readonly fleet = new Map<number, SimStore>();
  /** Keys that are pinned. */
  readonly pinned = new Map<string, ObjectKey>();
  /** Keys that have ever had a time to live. */
  readonly mortal = new Map<string, ObjectKey>();
  /** Migrations in progress. */
  migrations = 0;
  readonly cacheOptions: TieredCacheOptions;
  readonly #replay: string;
  readonly #random: SimRandom;
  readonly #phases: ReadonlyMap<SimStore, FaultPhases>;
  readonly #modules: readonly L2AdapterModule[];
  readonly #buffers = new SimBuffers();
  /** Time when objects were last lost with their device, or forgotten. */
  readonly #lostAt = new Map<string, number>();
  /** Objects that are going to expire, with a function that cancels the check. */
  readonly #expirations = new Map<string, () => void>();
  #life: Life | undefined;
  #opening = new Map<SimStore, SimAdapter>();
  #isOpen = Promise.withResolvers<void>();
  #real: Promise<unknown> | undefined;
  #tasks = 0;
  #failure: SimError | undefined;

  constructor({ random, replay, print }: SimWorldOptions) {
    this.#replay = replay;
    this.#random = random;
    this.trace = new SimTrace(this.clock, print);
    const kinds = random.chance(0.3) ? KINDS : KINDS.filter(({ canDelete }) => canDelete);
    this.stores = kinds.map((kind) => new SimStore(kind));
    this.#phases = new Map(this.stores.map((store) => {
      return [store, new FaultPhases(this.clock, random.fork(), store.kind.faults)];
    }));
    this.#modules = this.stores.map((store) => this.#moduleOf(store));
    this.cacheOptions = cacheOptions(random);
    const { store, prefetch, l1 } = this.cacheOptions;
    this.trace.note("options", JSON.stringify({ store, prefetch, l1 }));
  }

  /** Work that has not ended. */
  get tasks(): number {
    return this.#tasks;
  }

  /** First failure. */
  get failure(): SimError | undefined {
    return this.#failure;
  }

  /** Waits once for real work, during which no simulated time passes. */
  takeReal(): Promise<unknown> | undefined {
    const real = this.#real;
    this.#real = undefined;
    return real;
  }

  /** Ends the simulation; only the first failure counts. */
  fail(what: string, cause?: unknown): void {
    const reason = cause instanceof Error ? `\n${cause.stack ?? cause.message}` : "";
    this.#failure ??= new SimError(
      `${what}, at ${this.clock.now().toFixed(3)} ms; replay with: ${this.#replay}${reason}\n` +
        `What happened last:\n${this.trace.tail()}`,
      { cause },
    );
  }

  /** Runs work concurrently; its failure ends the simulation. */
  spawn(work: () => Promise<void>): Promise<void> {
    this.#tasks++;
    return work().catch((error: unknown) => this.fail("a call threw", error))
      .finally(() => this.#tasks--);
  }

  /** Calls a method that may be rejected only because the cache is being closed. */
  async guarded(life: Life, call: () => Promise<unknown>): Promise<void> {
    try {
      await call();
    } catch (error) {
      if (!life.isClosing) this.fail("a call was rejected", error);
    }
  }

  /** Waits for the cache; if there is none, for the next one. */
  async current(): Promise<Life> {
    while (this.#life === undefined || this.#life.isClosing) await this.#isOpen.promise;
    return this.#life;
  }

  /** Opens a cache on top of stores. */
  async open(stores: readonly SimStore[]): Promise<void> {
    const clock = this.clock.view();
    const device = this.newDevice();
    const adapters = this.#opening = new Map();
    this.fleet.clear();
    const opening = TieredCache.open({
      ...this.cacheOptions,
      device,
      l2: stores.map(configOf),
      adapters: this.#modules,
      clock,
      random: this.#random.fork(),
    });
    this.#real = opening.catch(() => {});
    const cache = await opening;
    for (const { id, type } of cache.listAdapters()) {
      const store = this.stores.find(({ kind }) => kind.type === type);
      if (store !== undefined) this.fleet.set(id, store);
    }
    this.#listen(cache.events);
    this.#life = { cache, device, clock, adapters, isClosing: false };
    this.#isOpen.resolve();
  }

  /** Closes a cache and checks that nothing of it is left. */
  async close(life: Life): Promise<void> {
    this.#isOpen = Promise.withResolvers();
    life.isClosing = true;
    await life.cache.close();
    checkStatus(life.cache.reportStatus());
    for (const id of [...this.#expirations.keys()]) this.endLife(id);
    this.pinned.clear();
    this.mortal.clear();
    await this.clock.settle();
    if (life.clock.pendingTimers > 0) this.fail(`${life.clock.pendingTimers} timers after close`);
    if (life.device.slabCount > 0) this.fail(`${life.device.slabCount} slabs after close`);
    this.trace.note("closed");
  }

  newDevice(): SimDevice {
    return new SimDevice(this.clock, this.#random.fork());
  }

  /** Ends all faults, except calls that never end. */
  stopFaults({ adapters }: Life): void {
    for (const phases of this.#phases.values()) phases.stop();
    for (const adapter of adapters.values()) adapter.release();
  }

  /** Expects an object to be gone after the given milliseconds, unless it is put again. */
  expectExpiry(key: ObjectKey, ms: number): void {
    const life = this.#life;
    const expiresAt = this.clock.now() + ms;
    this.endLife(key.id);
    this.mortal.set(key.id, key);
    // A moment later, so that the order of timers does not matter.
    const cancel = this.clock.schedule(() => {
      this.#expirations.delete(key.id);
      this.pinned.delete(key.id);
      if (life === this.#life) this.oracle.expire([key], expiresAt);
    }, ms + 1);
    this.#expirations.set(key.id, cancel);
  }

  /** Expects an object to stay. */
  endLife(id: string): void {
    this.#expirations.get(id)?.();
    this.#expirations.delete(id);
  }

  /** Allows the objects of a store to return although they were forgotten. */
  excuse(life: Life, store: SimStore): void {
    this.oracle.excuse(store.held.values().map(({ key }) => key));
    this.oracle.excuse(life.adapters.get(store)?.storing() ?? []);
  }

  /**
   * An object that is being stored must stay in L1 until the call ends, except copies of a
   * migration.
   */
  #checkUnheld(key: ObjectKey, reason: string): void {
    if (this.migrations > 0) return;
    // A copy of an object that was lost or forgotten since then does not count.
    const lostAt = this.#lostAt.get(key.id) ?? -Infinity;
    const since = Math.max(lostAt, this.clock.now() - DEFAULT_ADAPTER_TIMEOUTS.storeMs);
    for (const [{ kind }, adapter] of this.#life?.adapters ?? []) {
      if (!adapter.isStoring(key, since)) continue;
      this.fail(`an object was ${reason} while ${kind.type} stores it: ${key.id}`);
    }
  }

  #moduleOf(store: SimStore): L2AdapterModule {
    return defineL2Adapter({
      type: store.kind.type,
      summary: "Simulated.",
      config: {},
      create: () => {
        const isOpen = this.#life?.isClosing === false;
        const adapters = isOpen ? this.#life?.adapters : this.#opening;
        const adapter = new SimAdapter({
          store,
          phases: this.#phases.get(store) as FaultPhases,
          clock: this.clock,
          random: this.#random.fork(),
          note: (event, details) => this.trace.note(event, details),
          count: (event) => this.trace.count(event),
          buffers: this.#buffers,
          violated: (what) => this.fail(what),
        });
        adapters?.set(store, adapter);
        // It still has objects that were forgotten while it was away.
        this.oracle.excuse(store.held.values().map(({ key }) => key));
        return adapter;
      },
    });
  }

  #listen(events: CacheEvents): void {
    for (const type of PLAIN_EVENTS) {
      events.addEventListener(type, ({ detail }) => {
        this.trace.note(`event ${type}`, JSON.stringify(detail));
      });
    }
    events.addEventListener("removed", ({ detail: { key, reason } }) => {
      this.trace.note(`event removed ${reason}`, key.id);
      // An expired object loses its pins, also later ones if it could not be removed at once.
      const isPinned = this.pinned.has(key.id) && !this.mortal.has(key.id);
      if (reason === "forgotten" || reason === "device-lost") {
        this.#lostAt.set(key.id, this.clock.now());
        return;
      }
      this.#checkUnheld(key, reason);
      if (isPinned) this.fail(`a pinned object was ${reason}: ${key.id}`);
    });
    events.addEventListener("damaged", ({ detail: { adapter, key, fault } }) => {
      this.trace.note(`damaged ${fault}`, `${adapter.type} ${key.id}`);
      // A migration also copies objects of another layout.
      const spoilers = fault === "layout"
        ? this.stores
        : this.stores.filter(({ kind }) => kind.type === adapter.type);
      if (!spoilers.some(({ spoiled }) => spoiled.has(key.id))) {
        this.fail(`${adapter.type}: ${fault} of what it did not spoil: ${key.id}`);
      }
    });
  }
}
