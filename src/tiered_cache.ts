import { CacheHit, type WarmResult } from "./cache_hit.ts";
import type { TieredCacheOptions } from "./cache_options.ts";
import { statusOf } from "./cache_status.ts";
import { CacheParts } from "./cache_wiring.ts";
import {
  type CloseOptions,
  type FlushOptions,
  readDeadline,
  readPrefetchOptions,
} from "./call_options.ts";
import type { QuotaRegistry } from "./eviction/quota_registry.ts";
import type {
  AdapterInfo,
  RemoveAdapterOptions,
  RemoveAdapterReport,
} from "./hotplug/adapter_manager.ts";
import type { ObjectLayout } from "./keys/kv_layout.ts";
import type { ObjectKey } from "./keys/object_key.ts";
import type { L1Status, StagedObject, WriteReservation } from "./l1/l1_cache.ts";
import type { L2Config } from "./l2/adapter_config.ts";
import type { ForgetReport, ForgetSelector } from "./lifecycle/key_lifecycle.ts";
import type { DeviceAnswer, MemoryDevice } from "./memory/memory_device.ts";
import { checkKeys } from "./object_checks.ts";
import type { KeyGroup } from "./prefetch/key_group.ts";
import type { PrefetchOptions } from "./prefetch/prefetch_controller.ts";
import type { FlushReport } from "./store/flush_report.ts";
import { isSkip, type SkipReason } from "./store/skipped_writes.ts";
import type { CacheStatus } from "./telemetry/cache_status.ts";
import type { CacheEvents } from "./telemetry/events.ts";
import { reportToOpenTelemetry } from "./telemetry/otel_metrics.ts";

/**
 * A cache with two tiers: device memory (L1), and storage adapters (L2) in which every object is
 * stored and from which it is loaded again. A lookup returns exactly the bytes stored under that
 * key, or it misses.
 */
export class TieredCache implements AsyncDisposable {
  /** Events of the cache. */
  readonly events: CacheEvents;
  /** Quotas of cache salts. */
  readonly quota: QuotaRegistry;
  readonly #parts: CacheParts;
  /** Ends the report of metrics. */
  readonly #endMetrics: () => void;

  private constructor(parts: CacheParts, { metrics }: TieredCacheOptions) {
    this.#parts = parts;
    this.events = parts.events;
    this.quota = parts.quota;
    this.#endMetrics = reportToOpenTelemetry({
      events: parts.events,
      reportStatus: () => this.reportStatus(),
      usageBySalt: () => metrics?.salts === true ? this.usageBySalt() : undefined,
    });
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
    return new TieredCache(await CacheParts.open(options), options);
  }

  /** Current device of L1. */
  get device(): MemoryDevice {
    return this.#parts.l1.device;
  }

  /** Time of the clock of the cache, in milliseconds. */
  now(): number {
    return this.#parts.clock.now();
  }

  /** Size in bytes of the largest object that can be stored. */
  get maxObjectBytes(): number {
    return this.#parts.l1.maxObjectBytes;
  }

  /**
   * Checks that objects of a layout can be stored.
   *
   * @throws {RangeError} If they are empty, misaligned or larger than the cache can move.
   */
  checkLayout(layout: ObjectLayout): void {
    this.#open.checks.checkObjects([], layout);
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
    const { checks, l1, skipped } = this.#open;
    checks.checkObjects(keys, layout);
    const reservations = l1.reserveWrite(keys, layout);
    const reason = reservations[0]?.status;
    if (isSkip(reason)) skipped.rejected(reason, keys, layout, countSkipped(reason));
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
    return this.#open.l1.finishWrite(objects, isFilled);
  }

  /** Cancels reservations. */
  cancelWrite(objects: readonly StagedObject[]): void {
    this.#parts.l1.finishWriteAndDelete(objects);
  }

  /**
   * Leases those of the objects that are in device memory now, without asking the adapters. Disposing
   * ends the leases.
   */
  leaseResident(keys: readonly ObjectKey[]): Disposable {
    checkKeys("leaseResident", keys);
    const { l1 } = this.#parts;
    const leases = l1.reserveRead(keys).flatMap((r) => r.status === "success" ? [r.lease] : []);
    return { [Symbol.dispose]: () => void l1.finishRead(leases) };
  }

  /** @deprecated Use {@linkcode leaseResident}. */
  pinResident(keys: readonly ObjectKey[]): Disposable {
    return this.leaseResident(keys);
  }

  /**
   * Marks those objects that are in device memory as used now. Keys are in prefix order. Leading
   * objects that the adapters have, too, are reported to them as used.
   *
   * @param options.isUse Whether this counts as a use, like a match that served them. If not, it
   * only keeps objects together with those that were just written after them.
   */
  touch(
    keys: readonly ObjectKey[],
    { isUse = true }: { readonly isUse?: boolean } = {},
  ): void {
    checkKeys("touch", keys);
    const length = this.#parts.l1.touch(keys, isUse);
    this.#parts.uses.note([{ keys }], { length, l1Objects: length });
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
    const { checks, l1, prefetch } = this.#open;
    checks.checkGroups(groups);
    const result = await prefetch.prefetch(groups, readPrefetchOptions(options));
    return new CacheHit(l1, result, groups[0]?.keys.length ?? 0);
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
    const { checks, prefetch } = this.#open;
    checks.checkGroups(groups);
    const { length, l1Objects } = await prefetch.warm(groups, readPrefetchOptions(options));
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
    return await this.#open.store.flush(readDeadline("flush", options));
  }

  /**
   * Resolves when the queues of all working adapters have room, for producers that prefer waiting
   * over dropped objects.
   */
  async storeReady(): Promise<void> {
    await this.#open.store.ready();
  }

  /**
   * Removes every object from device memory that is not leased, dirty, pinned or being written.
   * Copies in adapters stay.
   */
  clearL1(): void {
    this.#parts.l1.clear();
  }

  /**
   * Continues with a new device after the old one was lost. The contents of device memory are
   * loaded from the adapters again as needed.
   *
   * @param device See {@linkcode TieredCacheOptions}.
   * @throws {Error} If the cache is closed, or its device is not lost.
   */
  async attachDevice(device?: GPUDevice | MemoryDevice): Promise<void> {
    await this.#open.attachDevice(device);
  }

  /**
   * Opens a storage adapter and appends it to the others.
   *
   * @returns Its id, which is never reused.
   * @throws {ConfigError} If its type is unknown or its configuration is not valid.
   * @throws {AdapterError} If it does not open in time.
   */
  async addAdapter(config: L2Config): Promise<number> {
    return await this.#open.addAdapter(config);
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
    return await this.#open.manager.remove(id, options);
  }

  /** Lists the storage adapters in order of preference. */
  listAdapters(): AdapterInfo[] {
    return this.#parts.manager.list();
  }

  /**
   * Keeps objects from being evicted, in L1 and in adapters whose eviction the cache does. For the
   * duration of a request, hold the {@linkcode CacheHit} instead.
   */
  pin(keys: readonly ObjectKey[]): void {
    checkKeys("pin", keys);
    this.#open.l1.pin(keys);
  }

  /** Reverses {@linkcode pin}, however often it was called. */
  unpin(keys: readonly ObjectKey[]): void {
    checkKeys("unpin", keys);
    this.#parts.l1.unpin(keys);
  }

  /**
   * Removes objects from every tier `ms` milliseconds from now, if this process still runs then.
   * `null` cancels that.
   *
   * @throws {RangeError} If `ms` is negative or not finite.
   */
  ttl(keys: readonly ObjectKey[], ms: number | null): void {
    checkKeys("ttl", keys);
    this.#open.lifecycle.ttl(keys, ms);
  }

  /**
   * Removes objects from every tier: those with the given keys, all under a cache salt, or all of a
   * model. The report says what was removed where, and which adapter could not remove its objects.
   *
   * @throws {TypeError} If the selector does not have exactly one of `keys`, `salt` and `model`.
   */
  async forget(selector: ForgetSelector): Promise<ForgetReport> {
    return await this.#open.lifecycle.forget(selector);
  }

  /** Bytes of the objects in device memory, by cache salt. */
  usageBySalt(): Map<string, number> {
    return this.#parts.l1.usageBySalt();
  }

  /** Current status of the cache and its adapters. */
  reportStatus(): CacheStatus {
    return statusOf(this.#parts);
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
    const closed = this.#parts.close(readDeadline("close", options));
    closed.then(this.#endMetrics, this.#endMetrics);
    return closed;
  }

  /** Closes the cache within 10 s; objects that could not be stored are logged. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts[Symbol.asyncDispose]().finally(this.#endMetrics);
  }

  /** @throws {Error} If the cache is closed. */
  get #open(): CacheParts {
    this.#parts.throwIfClosed();
    return this.#parts;
  }
}
