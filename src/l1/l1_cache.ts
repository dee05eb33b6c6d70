import { getLogger } from "@logtape/logtape";
import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryDevice, Slab } from "../memory/memory_device.ts";
import { type Allocation, bytesTaken, SlabAllocator } from "../memory/slab_allocator.ts";
import type { Clock } from "../runtime/clock.ts";
import { EvictionPlanner } from "./eviction_planner.ts";
import type { EvictionPolicy } from "./eviction_policy.ts";
import { EntryPin, L1Entry } from "./l1_entry.ts";
import type {
  ForgottenObjects,
  L1CacheOptions,
  L1Listener,
  L1Pin,
  L1RemovalReason,
  L1Status,
  L1StatusReport,
  ReadReservation,
  ReserveWriteOptions,
  StagedObject,
  WriteReservation,
  WrittenObject,
} from "./l1_types.ts";
import { ObjectTable } from "./object_table.ts";

export type {
  ForgottenObjects,
  L1CacheOptions,
  L1Listener,
  L1Pin,
  L1RemovalReason,
  L1Status,
  L1StatusReport,
  ReadReservation,
  ReserveWriteOptions,
  StagedObject,
  WriteReservation,
  WrittenObject,
} from "./l1_types.ts";

type Failure = Exclude<L1Status, "success">;

const logger = getLogger(["kvtier", "l1"]);

/**
 * Objects in device memory. An object is *staged* while its writer fills it, invisible to readers;
 * then it is *resident*, and *pinned* while it is read. What nobody pins, holds or protects may be
 * evicted, at once, when a reservation needs the room. Locks expire, so that a caller that vanished
 * cannot hold memory for ever. Expected outcomes are returned, not thrown.
 */
export class L1Cache implements Disposable {
  readonly #options: L1CacheOptions;
  readonly #clock: Clock;
  readonly #policy: EvictionPolicy;
  readonly #writeTtlMs: number;
  readonly #readTtlMs: number;
  #device: MemoryDevice;
  readonly #table: ObjectTable;
  readonly #planner: EvictionPlanner;
  readonly #listeners = new Set<L1Listener>();
  readonly #left: { readonly key: ObjectKey; readonly reason: L1RemovalReason }[] = [];
  #isDetached = false;
  #isClosed = false;
  #evictedCount = 0;
  #outOfMemoryCount = 0;
  #quotaExceededCount = 0;
  #failedSlabCount = 0;
  #unfilledCount = 0;

  /** @throws {RangeError} If a size is not a positive multiple of 256 bytes. */
  constructor(options: L1CacheOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#policy = options.policy;
    this.#writeTtlMs = options.writeTtlMs ?? 600_000;
    this.#readTtlMs = options.readTtlMs ?? 300_000;
    this.#device = options.device;
    this.#table = new ObjectTable(this.#createAllocator(options.device));
    this.#planner = new EvictionPlanner(this.#table, options.policy, options.quotaOf);
  }

  /** Where the bytes lie: the device that was attached last. */
  get device(): MemoryDevice {
    return this.#device;
  }

  /** Most bytes of device memory. */
  get capacityBytes(): number {
    return this.#options.capacityBytes;
  }

  /** Bytes of device memory that objects take, staged and leaving ones too. */
  get usedBytes(): number {
    return this.#table.allocator.usedBytes;
  }

  /** Largest object that fits into an empty cache, in bytes. */
  get maxObjectBytes(): number {
    return this.#table.allocator.maxObjectBytes;
  }

  /** Adds a listener. */
  addListener(listener: L1Listener): void {
    this.#listeners.add(listener);
  }

  /** Removes a listener. */
  removeListener(listener: L1Listener): void {
    this.#listeners.delete(listener);
  }

  /**
   * Allocates room for objects and locks it for writing, evicting what is least worth keeping. All
   * keys that can be written get their room, or none does (`out-of-memory`, `quota-exceeded`).
   * Nothing is evicted for a batch for which all that may leave would not make room, unless it would
   * only not be in one piece, nor any object that the batch names. A key that it names twice gets one range.
   */
  reserveWrite(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: ReserveWriteOptions = {},
  ): WriteReservation[] {
    const { writer = "store", temporary = false } = options;
    if (this.#isLost) return keys.map(() => ({ status: "device-lost" }));
    const now = this.#clock.now();
    const named = new Set<string>();
    const isWritable = keys.map((key) => {
      if (named.has(key.id)) return false;
      named.add(key.id);
      return this.#isWritable(key, writer, now);
    });
    const staged: L1Entry[] = [];
    const reservations: WriteReservation[] = [];
    let failure = this.#makeRoom(keys.filter((_, i) => isWritable[i]), layout, named, now);
    const roomMakers = this.#roomMakers(named, now);
    for (let i = 0; i < keys.length && failure === null; i++) {
      const key = keys[i] as ObjectKey;
      if (isWritable[i] !== true) {
        reservations.push({ status: "key-not-writable" });
        continue;
      }
      const allocation = this.#allocate(layout.byteLength, roomMakers);
      if (allocation === null) {
        failure = "out-of-memory";
        break;
      }
      const lock = { writer, isTemporary: temporary, lockExpiresAt: now + this.#writeTtlMs };
      const entry = new L1Entry(key, layout, allocation, lock);
      this.#table.stage(entry);
      staged.push(entry);
      reservations.push({ status: "success", staged: entry });
    }
    if (failure !== null) {
      if (failure === "out-of-memory") this.#outOfMemoryCount++;
      else if (failure === "quota-exceeded") this.#quotaExceededCount++;
      for (const entry of staged) this.#table.unstage(entry);
    }
    this.#notifyRemoved();
    return failure === null ? reservations : keys.map(() => ({ status: failure }));
  }

  /**
   * Makes staged objects resident, in prefix order, and reports them to be written through.
   * Where another writer was faster, the staged copy is dropped: the bytes are the same.
   */
  finishWrite(objects: readonly StagedObject[]): L1Status[] {
    const now = this.#clock.now();
    const admitted: L1Entry[] = [];
    const statuses = objects.map((object) => this.#admit(object, now, admitted));
    this.#policy.admitted(admitted.map(({ key }) => key.id));
    const written = admitted.filter(({ isTemporary }) => !isTemporary)
      .map(({ key, layout }): WrittenObject => ({ key, layout }));
    if (written.length > 0) this.#tell((listener) => listener.written?.(written));
    if (admitted.length > 0) this.#tell((listener) => listener.admitted?.());
    return statuses;
  }

  /**
   * Makes staged objects resident and pins them, in one step. They came from a storage adapter:
   * nobody is told to write them through again.
   */
  finishWriteAndReserveRead(objects: readonly StagedObject[]): ReadReservation[] {
    const now = this.#clock.now();
    const admitted: L1Entry[] = [];
    const reservations = objects.map((object): ReadReservation => {
      const status = this.#admit(object, now, admitted);
      return status === "success" ? this.#pin(object.key, now) : { status };
    });
    this.#policy.admitted(admitted.map(({ key }) => key.id));
    if (admitted.length > 0) this.#tell((listener) => listener.admitted?.());
    return reservations;
  }

  /** Gives up staged objects; they were never visible. */
  finishWriteAndDelete(objects: readonly StagedObject[]): L1Status[] {
    return objects.map((object) => {
      const entry = this.#stagedBy(object);
      if (entry === undefined) return "key-not-exist";
      this.#table.unstage(entry);
      return "success";
    });
  }

  /**
   * Removes objects that were finished before it was known that nothing has filled them, whoever has
   * pinned or holds them: what lies in their ranges belongs to other keys.
   */
  withdraw(objects: readonly StagedObject[]): void {
    for (const object of objects) {
      if (!(object instanceof L1Entry)) continue;
      if (object.state === "resident" && this.#table.get(object.key.id) === object) {
        this.#remove(object, "unfilled");
      } else if (object.state === "leaving") this.#table.discard(object);
      else continue;
      this.#unfilledCount++;
    }
    this.#notifyRemoved();
  }

  /** Pins resident objects; that alone is no use of them, see {@linkcode touch}. */
  reserveRead(keys: readonly ObjectKey[]): ReadReservation[] {
    const now = this.#clock.now();
    return keys.map((key) => this.#pin(key, now));
  }

  /** Gives up pins. A pin that expired, or is given up twice, changes nothing. */
  finishRead(pins: readonly L1Pin[]): L1Status[] {
    const now = this.#clock.now();
    const statuses = pins.map((pin): L1Status => {
      if (!(pin instanceof EntryPin) || pin.entry.state === "gone") return "key-not-exist";
      if (this.#device.isLost || !pin.isLive(now)) return "key-in-wrong-state";
      pin.isReleased = true;
      const { entry } = pin;
      entry.locks--;
      if (entry.locks > 0) return "success";
      if (entry.state === "leaving") this.#table.discard(entry);
      else if (entry.isTemporary && entry.mayLeave(now)) this.#remove(entry, "temporary");
      else this.#table.recount(entry);
      return "success";
    });
    this.#notifyRemoved();
    return statuses;
  }

  /** Whether a pin still protects its object; if not, the bytes in its range may be others. */
  isPinned(pin: L1Pin): boolean {
    return pin instanceof EntryPin && pin.isLive(this.#clock.now()) && !this.#device.isLost;
  }

  /** Whether all of these pins still protect their objects; faster than one by one. */
  arePinned(pins: readonly L1Pin[]): boolean {
    const now = this.#clock.now();
    return !this.#device.isLost &&
      pins.every((pin) => pin instanceof EntryPin && pin.isLive(now));
  }

  /** Lets pins live for the whole time again; whether all of them protect their objects still. */
  renew(pins: readonly L1Pin[]): boolean {
    if (!this.arePinned(pins)) return false;
    const expiresAt = this.#clock.now() + this.#readTtlMs;
    for (const pin of pins) if (pin instanceof EntryPin) pin.entry.lockExpiresAt = expiresAt;
    return true;
  }

  /** Counts as a use of resident objects. */
  touch(keys: readonly ObjectKey[]): void {
    this.#policy.touched(keys.map((key) => key.id));
  }

  /** Removes resident objects, unless they are pinned, held or being written. */
  delete(keys: readonly ObjectKey[]): L1Status[] {
    const now = this.#clock.now();
    const statuses = keys.map((key): L1Status => {
      let isStaged = false;
      for (const entry of this.#table.stagedUnder(key.id)) {
        if (entry.isLocked(now)) isStaged = true;
        else this.#table.unstage(entry);
      }
      const entry = this.#table.get(key.id);
      if (entry === undefined) return isStaged ? "key-is-locked" : "key-not-exist";
      if (entry.holds > 0 || entry.isLocked(now)) return "key-is-locked";
      this.#remove(entry, "deleted");
      return "success";
    });
    this.#notifyRemoved();
    return statuses;
  }

  /** Removes all objects that nobody pins, holds or protects. */
  clear(): void {
    const now = this.#clock.now();
    this.#table.reclaimExpired(now);
    for (const entry of this.#table.residents()) {
      if (entry.mayLeave(now)) this.#remove(entry, "deleted");
    }
    this.#notifyRemoved();
  }

  /**
   * Removes every object whose key passes a test, so that nobody finds it any more, whatever locks
   * it. What is read is freed with its last reader, whose pin stays valid; a staged object is freed
   * when its writer finishes, who is told `key-not-exist`, or when its lock has expired.
   */
  forget(test: (key: ObjectKey) => boolean): ForgottenObjects {
    const now = this.#clock.now();
    const resident = this.#table.residents().filter(({ key }) => test(key)).toArray();
    const staged = this.#table.allStaged().filter(({ key }) => test(key));
    for (const entry of resident) {
      if (!entry.isLocked(now)) this.#remove(entry, "forgotten");
      else this.#takeOut(entry, "forgotten");
    }
    for (const entry of staged) {
      if (entry.isLocked(now)) this.#table.condemn(entry);
      else this.#table.unstage(entry);
    }
    this.#notifyRemoved();
    const forgotten = [...resident, ...staged];
    const bytes = forgotten.reduce((sum, { layout }) => sum + layout.byteLength, 0);
    return { objects: forgotten.length, bytes };
  }

  /**
   * Says that objects need not stay: what nobody pins, holds or protects leaves now, and what is
   * only pinned leaves with its last reader.
   */
  release(keys: readonly ObjectKey[]): void {
    const now = this.#clock.now();
    for (const key of keys) {
      const entry = this.#table.get(key.id);
      if (entry === undefined || entry.holds > 0 || entry.isProtected) continue;
      if (entry.isLocked(now)) entry.isTemporary = true;
      else this.#remove(entry, "released");
    }
    this.#notifyRemoved();
  }

  /**
   * Keeps resident objects from being evicted, deleted, cleared and released, until
   * {@linkcode unhold} was called as often. Only {@linkcode forget} and the loss of the device
   * remove them.
   *
   * @returns Which were resident, and are held now.
   */
  hold(keys: readonly ObjectKey[]): Bitmap {
    return Bitmap.from(keys, (key) => {
      const entry = this.#table.get(key.id);
      if (entry === undefined) return false;
      this.#table.hold(entry, 1);
      return true;
    });
  }

  /** Takes holds back; what is not held stays so. */
  unhold(keys: readonly ObjectKey[]): void {
    for (const key of keys) {
      const entry = this.#table.get(key.id);
      if (entry !== undefined && entry.holds > 0) this.#table.hold(entry, -1);
    }
  }

  /**
   * Keeps what is or comes under these keys from being evicted, cleared and released, until
   * {@linkcode unprotect}.
   */
  protect(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#table.setProtected(key, true);
  }

  /** Takes protection back; what is not protected stays so. */
  unprotect(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#table.setProtected(key, false);
  }

  /** Whether a key is protected. */
  isProtected(key: ObjectKey): boolean {
    return this.#table.isProtected(key);
  }

  /**
   * Evicts what may leave until at most `bytes` are in use.
   *
   * @returns The bytes that became free.
   */
  evictTo(bytes: number): number {
    const before = this.usedBytes;
    const now = this.#clock.now();
    if (before > bytes) this.#table.reclaimExpired(now);
    if (this.usedBytes > bytes) {
      for (const entry of this.#planner.leavers(now)) {
        this.#evict(entry);
        if (this.usedBytes <= bytes) break;
      }
    }
    const freed = before - this.usedBytes;
    this.#notifyRemoved();
    return freed;
  }

  /**
   * Evicts what may leave of a salt until it has at most `bytes`.
   *
   * @returns The bytes of the salt that became free.
   */
  evictSalt(salt: string, bytes: number): number {
    const before = this.#table.usage.of(salt);
    const now = this.#clock.now();
    if (before > bytes) this.#table.reclaimExpired(now);
    if (this.#table.usage.of(salt) > bytes) {
      for (const entry of this.#planner.leavers(now)) {
        if (entry.key.cacheSalt !== salt) continue;
        this.#evict(entry);
        if (this.#table.usage.of(salt) <= bytes) break;
      }
    }
    const freed = before - this.#table.usage.of(salt);
    this.#notifyRemoved();
    return freed;
  }

  /** The objects that would leave next for `bytes` of room, were none held; changes nothing. */
  victims(bytes: number): WrittenObject[] {
    const now = this.#clock.now();
    const found: WrittenObject[] = [];
    if (!(bytes > 0)) return found;
    let missing = bytes;
    for (const entry of this.#planner.inOrder()) {
      if (entry.isProtected || entry.isLocked(now)) continue;
      found.push({ key: entry.key, layout: entry.layout });
      missing -= entry.bytes;
      if (missing <= 0) break;
    }
    return found;
  }

  /** Bytes that resident and staged objects of a salt take. */
  usedBytesOf(salt: string): number {
    return this.#table.usage.of(salt);
  }

  /** Bytes that resident and staged objects take, by salt. */
  usageBySalt(): Map<string, number> {
    return this.#table.usage.all();
  }

  /**
   * Whether a staged object can still be finished; if not, its room may be another object's, and
   * must not be written to.
   */
  isReserved(object: StagedObject): boolean {
    const entry = this.#table.heldByWriter(object);
    return entry?.state === "staged" && !this.#isLost && entry.isLocked(this.#clock.now());
  }

  /** Whether an object is resident. */
  has(key: ObjectKey): boolean {
    return this.#table.get(key.id) !== undefined;
  }

  /** Counters now. */
  reportStatus(): L1StatusReport {
    const stats = this.#table.allocator.stats();
    return {
      ...stats,
      isHealthy: !this.#isLost && this.#failedSlabCount === 0,
      ...this.#table.counts(this.#clock.now()),
      usageRatio: stats.usedBytes / stats.capacityBytes,
      evictedCount: this.#evictedCount,
      outOfMemoryCount: this.#outOfMemoryCount,
      quotaExceededCount: this.#quotaExceededCount,
      failedSlabCount: this.#failedSlabCount,
      unfilledCount: this.#unfilledCount,
      evictionPolicy: this.#policy.name,
      writeTtlMs: this.#writeTtlMs,
      readTtlMs: this.#readTtlMs,
    };
  }

  /**
   * Drops every object at once and voids every pin for ever, as when the device is lost; the memory
   * is released. Until {@linkcode attach}, calls answer `device-lost`. What is protected stays so.
   *
   * @param reason What the device said, for the log.
   */
  detach(reason?: string): void {
    if (this.#isDetached) return;
    this.#isDetached = true;
    if (reason !== undefined) logger.warn("L1 lost its device: {reason}", { reason });
    for (const entry of this.#table.residents()) this.#remove(entry, "device-lost");
    for (const entry of this.#table.allStaged()) this.#table.unstage(entry);
    for (const entry of this.#table.allLeaving()) this.#table.discard(entry);
    this.#table.allocator[Symbol.dispose]();
    this.#notifyRemoved();
  }

  /**
   * Works again, empty, on another device; if the last one is lost, it is detached.
   *
   * @throws {Error} If the cache is closed, or attached to a device that is not lost.
   * @throws {RangeError} If a size is not a positive multiple of 256 bytes.
   */
  attach(device: MemoryDevice): void {
    if (this.#isClosed) throw new Error("L1 is closed: open another cache");
    if (!this.#isLost) throw new Error("L1 has a device: detach it first");
    const allocator = this.#createAllocator(device);
    this.detach();
    this.#table.allocator = allocator;
    this.#device = device;
    this.#failedSlabCount = 0;
    this.#isDetached = false;
  }

  /** Drops every object at once and voids every pin, for ever. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.detach();
    this.#listeners.clear();
  }

  get #isLost(): boolean {
    return this.#isDetached || this.#device.isLost;
  }

  #createAllocator(device: MemoryDevice): SlabAllocator {
    const { capacityBytes, slabBytes } = this.#options;
    return new SlabAllocator(device, {
      capacityBytes,
      ...(slabBytes === undefined ? {} : { slabBytes }),
      onSlabFailed: (slab) => this.#dropSlab(slab),
    });
  }

  #isWritable(key: ObjectKey, writer: string, now: number): boolean {
    if (this.#table.get(key.id) !== undefined) return false;
    const staged = this.#table.staged(key.id, writer);
    if (staged === undefined) return true;
    if (staged.isLocked(now)) return false;
    this.#table.unstage(staged);
    return true;
  }

  /** Evicts for quotas, if that and what may leave besides makes room; else says why not. */
  #makeRoom(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    spared: ReadonlySet<string>,
    now: number,
  ): Failure | null {
    if (keys.length === 0) return null;
    if (layout.byteLength > this.maxObjectBytes) return "out-of-memory";
    const wanted = { keys, bytes: bytesTaken(layout.byteLength), spared };
    const leavers = this.#planner.leaversForQuotas(wanted, now);
    if (leavers === null) return "quota-exceeded";
    if (!this.#planner.canHold(wanted, now)) return "out-of-memory";
    for (const entry of leavers) this.#evict(entry);
    return null;
  }

  /** Frees more room at each step: first what expired, then what may leave. */
  *#roomMakers(spared: ReadonlySet<string>, now: number): Generator<void> {
    if (this.#table.reclaimExpired(now)) yield;
    for (const entry of this.#planner.leavers(now)) {
      if (spared.has(entry.key.id)) continue;
      this.#evict(entry);
      yield;
    }
  }

  #allocate(byteLength: number, roomMakers: Generator<void>): Allocation | null {
    let allocation = this.#table.allocator.allocate(byteLength);
    while (allocation === null && roomMakers.next().done !== true) {
      allocation = this.#table.allocator.allocate(byteLength);
    }
    return allocation;
  }

  #admit(object: StagedObject, now: number, admitted: L1Entry[]): L1Status {
    if (this.#isLost) return "device-lost";
    const entry = this.#stagedBy(object);
    if (entry === undefined) return "key-not-exist";
    // An expired writer may have lost its room to another: what lies there is not its object.
    if (!entry.isLocked(now)) return "key-in-wrong-state";
    if (this.#table.get(entry.key.id) !== undefined) {
      this.#table.unstage(entry);
      return "success";
    }
    this.#table.admit(entry);
    admitted.push(entry);
    return "success";
  }

  /** What a writer that has ended had staged; what was forgotten meanwhile is freed. */
  #stagedBy(object: StagedObject): L1Entry | undefined {
    const entry = this.#table.heldByWriter(object);
    if (entry?.state !== "condemned") return entry;
    this.#table.discard(entry);
    return undefined;
  }

  #pin(key: ObjectKey, now: number): ReadReservation {
    if (this.#isLost) return { status: "device-lost" };
    const entry = this.#table.get(key.id);
    if (entry === undefined) return { status: "key-not-exist" };
    this.#table.lock(entry, now, now + this.#readTtlMs);
    return { status: "success", pin: new EntryPin(entry) };
  }

  #evict(entry: L1Entry): void {
    this.#remove(entry, "evicted");
    this.#evictedCount++;
  }

  /** Whoever calls this calls {@linkcode #notifyRemoved} when its work is done. */
  #remove(entry: L1Entry, reason: L1RemovalReason): void {
    this.#takeOut(entry, reason);
    this.#table.discard(entry);
  }

  /** As {@linkcode #remove}, but the room stays in use. */
  #takeOut(entry: L1Entry, reason: L1RemovalReason): void {
    this.#table.takeOut(entry);
    this.#policy.removed(entry.key.id);
    this.#left.push({ key: entry.key, reason });
  }

  #dropSlab(slab: Slab): void {
    this.#failedSlabCount++;
    const isThere = ({ allocation }: L1Entry): boolean => allocation.slab === slab;
    for (const entry of this.#table.allStaged().filter(isThere)) this.#table.unstage(entry);
    for (const entry of this.#table.allLeaving().filter(isThere)) this.#table.discard(entry);
    for (const entry of this.#table.residents()) {
      if (isThere(entry)) this.#remove(entry, "device-lost");
    }
    this.#notifyRemoved();
  }

  #notifyRemoved(): void {
    if (this.#left.length === 0) return;
    const left = this.#left.splice(0);
    for (const { key, reason } of left) this.#tell((listener) => listener.removed?.(key, reason));
  }

  #tell(call: (listener: L1Listener) => void): void {
    for (const listener of this.#listeners) {
      try {
        call(listener);
      } catch (error) {
        logger.error("A listener of L1 failed: {error}", { error });
      }
    }
  }
}
