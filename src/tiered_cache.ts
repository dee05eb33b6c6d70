import { getLogger } from "@logtape/logtape";
import { CacheHit } from "./cache_hit.ts";
import { type ResolvedOptions, resolveOptions, type TieredCacheOptions } from "./cache_options.ts";
import type { CacheStatus } from "./cache_status.ts";
import {
  checkIsLayout,
  checkKeys,
  checkList,
  type CloseOptions,
  type FlushOptions,
  readDeadline,
  readPrefetchOptions,
} from "./call_options.ts";
import { openAdapterRegistry, openDevice } from "./cache_wiring.ts";
import type { ObjectLayout } from "./keys/kv_layout.ts";
import type { ObjectKey } from "./keys/object_key.ts";
import { L1Cache, type L1Status, type StagedObject, type WriteReservation } from "./l1/l1_cache.ts";
import { LruPolicy } from "./l1/lru.ts";
import type { AdapterGuard, GuardListener } from "./l2/adapter_guard.ts";
import type { AdapterRegistry } from "./l2/adapter_registry.ts";
import { bytesWithTrailer, TRAILER_BYTES } from "./adapter/object_trailer.ts";
import { type DeviceAnswer, type MemoryDevice, RANGE_ALIGNMENT } from "./memory/memory_device.ts";
import { alignedBytes } from "./memory/aligned_bytes.ts";
import { countThatFit, STAGING_BLOCK_BYTES, StagingPool } from "./memory/staging_pool.ts";
import { type Clock, systemClock, within } from "./base/clock.ts";
import { systemRandom } from "./base/random.ts";
import { CacheEvents } from "./telemetry/events.ts";
import {
  type AdapterInfo,
  AdapterManager,
  checkConfig,
  type L2Config,
  type RemoveAdapterOptions,
  type RemoveAdapterReport,
} from "./hotplug/adapter_manager.ts";
import { AdapterSet } from "./l2/adapter_set.ts";
import { EvictionController } from "./eviction/eviction_controller.ts";
import type { FlushReport } from "./store/flush_report.ts";
import type { KeyGroup } from "./prefetch/key_rows.ts";
import { ForgetBarrier } from "./lifecycle/forget_barrier.ts";
import { type ForgetReport, type ForgetSelector, KeyLifecycle } from "./lifecycle/key_lifecycle.ts";
import { PrefetchController, type PrefetchOptions } from "./prefetch/prefetch_controller.ts";
import { QuotaRegistry } from "./eviction/quota_registry.ts";
import { isSkip, SkippedWrites, type SkipReason } from "./store/skipped_writes.ts";
import { StoreController } from "./store/store_controller.ts";
import { UseReporter } from "./prefetch/use_reporter.ts";

const logger = getLogger(["kvtier", "cache"]);
const FINGERPRINT_BYTES = 8;
/** Default deadline of `close()` in milliseconds. */
const CLOSE_MS = 10_000;
/** Share of the deadline for storing dirty objects. */
const WRITING_SHARE = 0.8;

/** Result of {@linkcode TieredCache.warm}. */
export interface WarmResult {
  /** Number of chunks of the prefix that are now in device memory. */
  readonly length: number;
  /** Number of its objects that were already there. */
  readonly l1Objects: number;
}

/**
 * A cache with two tiers: device memory (L1), and storage adapters (L2) in which every object is
 * stored and from which it is loaded again. A lookup returns exactly the bytes stored under that
 * key, or it misses.
 */
export class TieredCache implements AsyncDisposable {
  /** Events of the cache. */
  readonly events: CacheEvents = new CacheEvents();
  /** Quotas of cache salts. */
  readonly quota: QuotaRegistry = new QuotaRegistry();
  readonly #l1: L1Cache;
  readonly #barrier = new ForgetBarrier();
  readonly #adapters = new AdapterSet();
  readonly #registry: AdapterRegistry;
  readonly #scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  readonly #store: StoreController;
  readonly #prefetch: PrefetchController;
  readonly #eviction: EvictionController;
  readonly #lifecycle: KeyLifecycle;
  readonly #manager: AdapterManager;
  readonly #uses: UseReporter;
  readonly #settings: ResolvedOptions;
  readonly #clock: Clock;
  readonly #skipped: SkippedWrites;
  /** Salts whose dirty objects are being stored so that they can be evicted. */
  readonly #relieved = new Set<string>();
  #ownsDevice: boolean;
  #knownLayouts = new WeakSet<ObjectLayout>();
  #closed: Promise<FlushReport> | undefined;

  private constructor(
    device: MemoryDevice,
    ownsDevice: boolean,
    registry: AdapterRegistry,
    options: TieredCacheOptions,
    settings: ResolvedOptions,
  ) {
    const { clock = systemClock, random = systemRandom } = options;
    const { l1: l1Options, store, prefetch, timeouts, breaker } = settings;
    const { watermark, ...bounds } = l1Options;
    const adapters = this.#adapters;
    this.#ownsDevice = ownsDevice;
    this.#registry = registry;
    this.#settings = settings;
    this.#clock = clock;
    this.#skipped = new SkippedWrites(clock);
    const l1 = this.#l1 = new L1Cache({
      ...bounds,
      device,
      clock,
      policy: new LruPolicy(),
      quotaOf: (salt) => this.quota.effective(salt).l1Bytes,
    });
    const scratch = this.#scratch = new StagingPool({
      blockBytes: STAGING_BLOCK_BYTES,
      capacityBytes: prefetch.maxInFlightBytes,
      create: () => alignedBytes(STAGING_BLOCK_BYTES),
      destroy: () => {},
    });
    this.#lifecycle = new KeyLifecycle({
      l1,
      adapters: () => adapters.all,
      clock,
      barrier: this.#barrier,
    });
    this.#store = new StoreController({
      ...store,
      idleMs: store.flushIdleMs,
      l1,
      adapters,
      clock,
      random,
      watermark: watermark ?? { high: 1, low: 1 },
    });
    this.#barrier.addWriter(this.#store);
    this.#eviction = new EvictionController({
      l1,
      quotas: this.quota,
      clock,
      isPinned: (key) => this.#lifecycle.isPinned(key),
      ...(watermark === undefined ? {} : { l1Watermark: watermark }),
    });
    this.#prefetch = new PrefetchController({
      l1,
      adapters,
      scratch,
      policy: prefetch.policy,
      clock,
      barrier: this.#barrier,
      onServed: (groups, result) => this.#uses.note(groups, result),
    });
    this.#uses = new UseReporter(adapters, clock);
    this.#manager = new AdapterManager({
      registry,
      adapters,
      store: this.#store,
      eviction: this.#eviction,
      scratch,
      clock,
      timeouts,
      breaker,
      l1Memory: () => ({
        type: this.device.type,
        maxObjectBytes: l1.maxObjectBytes,
        alignmentBytes: RANGE_ALIGNMENT,
      }),
      barrier: this.#barrier,
      listenerOf: (guard) => this.#listenerOf(guard),
      onRemoved: ({ id, type }) => this.events.emit("adapterremoved", { id, type }),
    });
    this.#store.addListener({
      dropped: (objects, reason) => this.events.emit("dropped", { objects, reason }),
    });
    this.#prefetch.addListener({
      deadline: (details) => this.events.emit("deadline", details),
    });
    l1.addListener({ removed: (key, reason) => this.events.emit("removed", { key, reason }) });
    this.#watch(device);
  }

  /**
   * Opens a cache.
   *
   * Requires `--allow-read` permission for `adaptersDir` if that is given, and the permissions that
   * the adapters need.
   *
   * @throws {ConfigError} If the type of an adapter is unknown or its configuration is not valid.
   * @throws {TypeError} If an option is unknown or has the wrong type.
   * @throws {RangeError} If a number is out of range.
   * @throws {AdapterError} If an adapter does not open in time.
   */
  static async open(options: TieredCacheOptions = {}): Promise<TieredCache> {
    const settings = resolveOptions(options);
    const registry = await openAdapterRegistry(options);
    const checked = [];
    for (const [i, config] of (options.l2 ?? []).entries()) {
      checked.push(await checkConfig(registry, config, `l2[${i}]`));
    }
    await using undo = new AsyncDisposableStack();
    const { device, isOwned } = await openDevice(options.device, settings);
    if (isOwned) undo.use(device);
    const cache = undo.use(new TieredCache(device, isOwned, registry, options, settings));
    for (const config of checked) await cache.#manager.add(config);
    undo.move();
    return cache;
  }

  /** Current device of L1. */
  get device(): MemoryDevice {
    return this.#l1.device;
  }

  /** Size in bytes of the largest object that can be stored. */
  get maxObjectBytes(): number {
    return this.#l1.maxObjectBytes;
  }

  /**
   * Checks that objects of a layout can be stored.
   *
   * @throws {RangeError} If they are empty, misaligned or larger than the cache can move.
   */
  checkLayout(layout: ObjectLayout): void {
    this.#checkObjects([], layout);
  }

  /**
   * Reserves device memory for objects to be written. Fill the ranges with work on the device's
   * queue, then call {@linkcode finishWrite} or {@linkcode cancelWrite}. After `l1.writeTtlMs`, or
   * when the device is lost, the memory may be given to another object and must not be written to
   * any more.
   *
   * @param countSkipped Returns the number of objects to count as skipped if there is no memory,
   * including objects after these keys that the caller gives up. Defaults to the number of keys.
   * @returns For each key its memory, or the reason why there is none.
   * @throws {RangeError} If the objects are empty, misaligned or larger than the cache can move.
   */
  reserveWrite(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    countSkipped: (reason: SkipReason) => number = () => keys.length,
  ): WriteReservation[] {
    checkKeys("reserveWrite", keys);
    this.#checkObjects(keys, layout);
    const reservations = this.#l1.reserveWrite(keys, layout);
    const status = reservations[0]?.status;
    if (status !== undefined && status !== "success") this.#noteSkipped(status, countSkipped);
    // Memory of dirty objects becomes evictable when the adapters have stored them.
    if (status === "out-of-memory") this.#store.relieve(keys.length * layout.byteLength);
    if (status === "quota-exceeded") { for (const key of keys) this.#relieve(key.cacheSalt); }
    return reservations;
  }

  /**
   * Makes reserved objects visible and queues them for the adapters, as soon as the device has
   * confirmed their memory and the work that fills them. Objects are in prefix order. Until then, a
   * match waits for them.
   *
   * @param isFilled Whether the device executes that work, as returned by `device.copy()`; if not,
   * the objects are discarded without having been visible. Defaults to `true`.
   * @returns For each object `success`, or why it was discarded: its reservation expired
   * (`key-in-wrong-state`), its memory was reused or it was forgotten (`key-not-exist`), or the
   * device is lost (`device-lost`).
   */
  finishWrite(objects: readonly StagedObject[], isFilled: DeviceAnswer = true): L1Status[] {
    this.#throwIfClosed();
    return this.#l1.finishWrite(objects, isFilled);
  }

  /** Cancels reservations. */
  cancelWrite(objects: readonly StagedObject[]): void {
    this.#l1.finishWriteAndDelete(objects);
  }

  /**
   * Leases those of the objects that are in device memory now, without asking the adapters. Disposing
   * ends the leases.
   */
  leaseResident(keys: readonly ObjectKey[]): Disposable {
    checkKeys("leaseResident", keys);
    const reservations = this.#l1.reserveRead(keys);
    const leases = reservations.flatMap((r) => r.status === "success" ? [r.lease] : []);
    return { [Symbol.dispose]: () => void this.#l1.finishRead(leases) };
  }

  /** @deprecated Use {@linkcode leaseResident}. */
  pinResident(keys: readonly ObjectKey[]): Disposable {
    return this.leaseResident(keys);
  }

  /**
   * Marks those objects that are in device memory as used now. Keys are in prefix order. Leading
   * objects that the adapters have, too, are reported to them as used.
   */
  touch(keys: readonly ObjectKey[]): void {
    checkKeys("touch", keys);
    const length = this.#l1.touch(keys);
    this.#uses.note([{ keys }], { length, l1Objects: length });
  }

  /**
   * Loads the longest available prefix of a chain of objects into device memory and leases it.
   *
   * @param keys Keys of the chain, in order.
   * @param layout Layout of all objects.
   * @throws {RangeError} If the objects are empty, misaligned or larger than the cache can move, or
   * `options.deadlineMs` is negative.
   * @throws The reason of `options.signal` if that aborts.
   */
  match(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: PrefetchOptions = {},
  ): Promise<CacheHit> {
    checkKeys("match", keys);
    return this.matchGroups([{ keys, layout }], options);
  }

  /**
   * Like {@linkcode match}, for models whose layers form several groups. Each group has one key for
   * each chunk. The result is the longest prefix for which every group has the chunks it needs.
   *
   * @throws {RangeError} If there is no group, groups differ in length, a window is smaller than 1,
   * objects are empty, misaligned or larger than the cache can move, or `options.deadlineMs` is
   * negative.
   * @throws The reason of `options.signal` if that aborts.
   */
  async matchGroups(groups: readonly KeyGroup[], options: PrefetchOptions = {}): Promise<CacheHit> {
    this.#checkGroups(groups);
    return new CacheHit(
      this.#l1,
      await this.#prefetch.prefetch(groups, readPrefetchOptions(options)),
    );
  }

  /** @deprecated Use {@linkcode matchGroups}. */
  matchRows(groups: readonly KeyGroup[], options: PrefetchOptions = {}): Promise<CacheHit> {
    return this.matchGroups(groups, options);
  }

  /**
   * Loads the longest available prefix into device memory and keeps it there, without leases, for
   * requests that are about to come. Takes the same arguments as {@linkcode matchGroups}.
   *
   * @throws As {@linkcode matchGroups}.
   */
  async warm(groups: readonly KeyGroup[], options: PrefetchOptions = {}): Promise<WarmResult> {
    this.#checkGroups(groups);
    const { length, l1Objects } = await this.#prefetch.warm(groups, readPrefetchOptions(options));
    return { length, l1Objects };
  }

  /**
   * Stores every dirty object. Resolves when the adapters have answered, or at the deadline;
   * objects not stored by then stay queued.
   *
   * @returns Objects that adapters do not have, since the last report, and why. Never rejects for
   * that reason.
   * @throws {TypeError} If an option is unknown or has the wrong type.
   * @throws {RangeError} If the deadline is negative.
   */
  async flush(options: FlushOptions = {}): Promise<FlushReport> {
    this.#throwIfClosed();
    return await this.#store.flush(readDeadline("flush", options));
  }

  /**
   * Resolves when the queues of all working adapters have room, for producers that prefer waiting
   * over dropped objects.
   */
  async storeReady(): Promise<void> {
    this.#throwIfClosed();
    await this.#store.ready();
  }

  /**
   * Removes every object from device memory that is not leased, dirty, pinned or being written.
   * Copies in adapters stay.
   */
  clearL1(): void {
    this.#l1.clear();
  }

  /**
   * Continues with a new device after the old one was lost. The contents of device memory are
   * loaded from the adapters again as needed.
   *
   * @param device See {@linkcode TieredCacheOptions}.
   * @throws {Error} If the cache is closed, or its device is not lost.
   */
  async attachDevice(device?: GPUDevice | MemoryDevice): Promise<void> {
    this.#throwIfAttached();
    const opened = await openDevice(device, this.#settings);
    using undo = new DisposableStack();
    if (opened.isOwned) undo.use(opened.device);
    this.#throwIfAttached();
    const before = this.device;
    this.#l1.attach(opened.device);
    undo.move();
    if (this.#ownsDevice) before[Symbol.dispose]();
    this.#ownsDevice = opened.isOwned;
    this.#knownLayouts = new WeakSet();
    this.#watch(opened.device);
    this.events.emit("deviceattached", { description: opened.device.description });
  }

  /**
   * Opens a storage adapter and appends it to the others.
   *
   * @returns Its id, which is never reused.
   * @throws {ConfigError} If its type is unknown or its configuration is not valid.
   * @throws {AdapterError} If it does not open in time.
   */
  async addAdapter(config: L2Config): Promise<number> {
    this.#throwIfClosed();
    const id = await this.#manager.add(await checkConfig(this.#registry, config));
    this.events.emit("adapteradded", { id, type: config.type });
    return id;
  }

  /**
   * Removes a storage adapter while the cache is in use.
   *
   * @throws {TypeError} If an option is unknown or has the wrong type.
   * @throws {RangeError} If no adapter has that id, or `timeoutMs` is negative.
   * @throws {ConfigError} If the mode is unknown, or its objects cannot be migrated.
   * @throws {AdapterError} If the deadline passes, or objects could not be migrated; the adapter
   * remains partly removed, and the call can be repeated.
   */
  async removeAdapter(
    id: number,
    options: RemoveAdapterOptions = {},
  ): Promise<RemoveAdapterReport> {
    this.#throwIfClosed();
    return await this.#manager.remove(id, options);
  }

  /** Lists the storage adapters in order of preference. */
  listAdapters(): AdapterInfo[] {
    return this.#manager.list();
  }

  /**
   * Keeps objects from being evicted, in L1 and in adapters whose eviction the cache does. For the
   * duration of a request, hold the {@linkcode CacheHit} instead.
   */
  pin(keys: readonly ObjectKey[]): void {
    this.#throwIfClosed();
    checkKeys("pin", keys);
    this.#lifecycle.pin(keys);
  }

  /** Reverses {@linkcode pin}, however often it was called. */
  unpin(keys: readonly ObjectKey[]): void {
    checkKeys("unpin", keys);
    this.#lifecycle.unpin(keys);
  }

  /**
   * Removes objects from every tier `ms` milliseconds from now, if this process still runs then.
   * `null` cancels that.
   *
   * @throws {RangeError} If `ms` is negative or not finite.
   */
  ttl(keys: readonly ObjectKey[], ms: number | null): void {
    this.#throwIfClosed();
    checkKeys("ttl", keys);
    this.#lifecycle.ttl(keys, ms);
  }

  /**
   * Removes objects from every tier: those with the given keys, all under a cache salt, or all of a
   * model. The report says what was removed where, and which adapter could not remove its objects.
   *
   * @throws {TypeError} If the selector does not have exactly one of `keys`, `salt` and `model`.
   */
  async forget(selector: ForgetSelector): Promise<ForgetReport> {
    this.#throwIfClosed();
    return await this.#lifecycle.forget(selector);
  }

  /** Current status of the cache and its adapters. */
  reportStatus(): CacheStatus {
    const { type, description, isFallback, isLost, copyPaths = [] } = this.device;
    const l1 = this.#l1.reportStatus();
    const store = this.#store.reportStatus();
    const adapters = this.#adapters.all.map((adapter) => adapter.reportStatus());
    const problems = [
      ...(this.#closed === undefined ? [] : ["the cache is closed"]),
      ...(isLost ? ["the GPU device is lost: call attachDevice() with a new one"] : []),
      ...(l1.failedSlabCount === 0 ? [] : [
        "the device is out of memory, so L1 has less than l1.capacityBytes: lower l1.capacityBytes",
      ]),
      ...this.#skipped.problems(l1.heldCount > l1.totalObjectCount / 2),
      ...this.#store.problems(),
      ...adapters.flatMap((adapter) =>
        adapter.problems.map((problem) => `adapter ${adapter.id} (${adapter.type}): ${problem}`)
      ),
      ...this.#manager.problems(),
    ];
    return {
      isHealthy: problems.length === 0,
      problems,
      device: { type, description, isFallback, isLost, copyPaths },
      l1,
      skippedWrites: this.#skipped.objects,
      store,
      prefetch: this.#prefetch.reportStatus(),
      eviction: this.#eviction.reportStatus(),
      lifecycle: this.#lifecycle.reportStatus(),
      adapters,
    };
  }

  /**
   * Stores every dirty object, closes the adapters and releases all memory, within `deadlineMs`.
   * Four fifths of that time are for storing and for loads in flight. Adapters that hang are
   * abandoned. A second call returns the report of the first one.
   *
   * @returns Objects that adapters do not have, since the last report, and why. Never rejects for
   * that reason.
   * @throws {TypeError} If an option is unknown or has the wrong type.
   * @throws {RangeError} If the deadline is negative.
   */
  close(options: CloseOptions = {}): Promise<FlushReport> {
    const deadlineMs = readDeadline("close", options) ?? CLOSE_MS;
    return this.#closed ??= this.#close(deadlineMs);
  }

  /** Closes the cache within 10 s; objects that could not be stored are logged. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { unwritten } = await this.close();
    for (const { adapter, reason, objects } of unwritten) {
      const { id, type } = adapter;
      logger.warn("{objects} objects are not in adapter {id} ({type}): {reason}", {
        objects,
        id,
        type,
        reason,
      });
    }
  }

  async #close(deadlineMs: number): Promise<FlushReport> {
    const clock = this.#clock;
    const endsAt = clock.now() + deadlineMs;
    // Everything is released even if a step fails, in reverse order.
    await using resources = new AsyncDisposableStack();
    if (this.#ownsDevice) resources.defer(() => this.device[Symbol.dispose]());
    resources.use(this.#scratch);
    resources.use(this.#l1);
    resources.use(this.#store);
    resources.defer(() => this.#manager.close(endsAt - clock.now()));
    resources.use(this.#uses);
    resources.use(this.#eviction);
    resources.use(this.#lifecycle);
    this.#manager.stop();
    const writingMs = deadlineMs * WRITING_SHARE;
    const [report] = await Promise.all([
      this.#store.flush(writingMs),
      within(clock, this.#prefetch.idle(), writingMs),
    ]);
    return report;
  }

  #watch(device: MemoryDevice): void {
    device.lost.then(({ message }) => {
      if (this.device !== device) return;
      this.#l1.detach(message);
      if (this.#closed === undefined) this.events.emit("devicelost", { message });
    });
  }

  #listenerOf({ id, type }: AdapterGuard): GuardListener {
    const adapter = { id, type };
    const { events } = this;
    return {
      stored: (objects) => {
        const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
        events.emit("stored", { adapter, objects: objects.length, bytes });
      },
      accessed: (keys) => events.emit("loaded", { adapter, objects: keys.length }),
      deleted: (keys, bytes) => events.emit("deleted", { adapter, objects: keys.length, bytes }),
      damaged: (key, fault) => events.emit("damaged", { adapter, key, fault }),
      stateChanged: () => events.emit("adapterchanged", adapter),
    };
  }

  #noteSkipped(reason: L1Status, countSkipped: (reason: SkipReason) => number): void {
    if (!isSkip(reason)) return;
    const objects = countSkipped(reason);
    if (objects === 0) return;
    this.#skipped.note(reason, objects);
    this.events.emit("skipped", { objects, reason });
  }

  #throwIfClosed(): void {
    if (this.#closed !== undefined) throw new Error("Cache is closed: open a new one");
  }

  #throwIfAttached(): void {
    this.#throwIfClosed();
    if (!this.device.isLost) {
      throw new Error("The device is not lost: only a lost device can be replaced");
    }
  }

  /** Stores the dirty objects of a salt, so that they can be evicted for others of that salt. */
  async #relieve(salt: string): Promise<void> {
    if (this.#relieved.has(salt)) return;
    this.#relieved.add(salt);
    await this.#store.settle({ matches: ({ cacheSalt }) => cacheSalt === salt });
    this.#relieved.delete(salt);
  }

  #checkGroups(groups: readonly KeyGroup[]): void {
    checkList("groups of keys", groups);
    for (const group of groups) checkKeys("a group", group?.keys);
    const length = groups[0]?.keys.length;
    if (length === undefined) throw new RangeError("At least one group is required: received none");
    for (const { keys, layout, windowChunks } of groups) {
      this.#checkObjects(keys, layout);
      if (keys.length !== length) {
        throw new RangeError(
          `All groups must have the same number of keys: received ${length} and ${keys.length}`,
        );
      }
      if (windowChunks !== undefined && !(windowChunks >= 1)) {
        throw new RangeError(`windowChunks must be at least 1: received ${windowChunks}`);
      }
    }
  }

  #checkObjects(keys: readonly ObjectKey[], layout: ObjectLayout): void {
    this.#throwIfClosed();
    checkIsLayout(layout);
    if (!this.#knownLayouts.has(layout)) {
      checkLayout(layout, this.maxObjectBytes);
      this.#knownLayouts.add(layout);
    }
    let size = layout.byteLength + TRAILER_BYTES;
    for (const key of keys) size = Math.max(size, bytesWithTrailer(key, layout));
    const { blockBytes, capacityBytes } = this.#scratch;
    if (countThatFit([size], blockBytes, capacityBytes) === 0) {
      throw new RangeError(
        `Object of ${size} bytes must fit into prefetch.maxInFlightBytes of ${capacityBytes}: raise it`,
      );
    }
    if (this.device.countReadable([size]) === 0) {
      throw new RangeError(
        `Object of ${size} bytes must fit into store.maxInFlightBytes: raise it`,
      );
    }
  }
}

function checkLayout({ byteLength, fingerprint }: ObjectLayout, maxBytes: number): void {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0 || byteLength % 4 !== 0) {
    throw new RangeError(`Object must be a positive multiple of 4 bytes: received ${byteLength}`);
  }
  if (byteLength > maxBytes) {
    throw new RangeError(
      `Object must fit into device memory of ${maxBytes} bytes: received ${byteLength}`,
    );
  }
  if (fingerprint.byteLength !== FINGERPRINT_BYTES) {
    throw new RangeError(
      `Layout fingerprint must have ${FINGERPRINT_BYTES} bytes: received ${fingerprint.byteLength}`,
    );
  }
}
