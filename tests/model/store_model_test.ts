import { assert, assertEquals } from "@std/assert";
import * as fc from "../support/fast_check.ts";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { L1Cache, type L1Lease, type L1RemovalReason } from "../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../src/policies/eviction_policy.ts";
import {
  type AdapterCapabilities,
  type AdapterObject,
  Bitmap,
  concatParts,
  type L2Adapter,
  type StoreResult,
} from "../../src/adapter/contract.ts";
import { AdapterGuard } from "../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";
import { bytesWithTrailer } from "../../src/adapter/object_trailer.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import {
  DeviceLostError,
  type ReadBack,
  type ReadBackRequest,
  type Slab,
} from "../../src/memory/memory_device.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { AdapterSet } from "../../src/l2/adapter_set.ts";
import { defaultStore, onEvict, skipL1, type StorePolicy } from "../../src/store/store_policy.ts";
import type { StoreController } from "../../src/store/store_controller.ts";
import type { WhenFull } from "../../src/store/store_types.ts";
import { assertSameBytes } from "../support/bytes.ts";
import { storeController } from "../support/controllers.ts";
import { finishAndRead } from "../support/l1.ts";
import { testBytes, testKey, testLayout } from "../support/objects.ts";
import { runs } from "../support/runs.ts";
import { sealedObject } from "../support/sealed_objects.ts";

// Random use of a StoreController with real guards around scripted adapters, on a device that fails
// as scripted. The history of every object is recorded where the controller meets L1 and the
// guards, and must be what the controller promises.

const SIZE = 256;
const CAPACITY = 8;
const KEYS = Array.from({ length: 10 }, (_, n) => testKey(n));
const NUMBERS = new Map(KEYS.map(({ id }, n) => [id, n]));
const SMALL = testLayout(SIZE);
const LARGE = testLayout(2 * SIZE);
const BYTES = KEYS.map((key, n) => testBytes(key, layoutOf(n).byteLength));
const SEALED = KEYS.map((key, n) => concatParts(sealedObject(key, layoutOf(n)).parts));

const IDLE_MS = 5;
const BACK_OFF_MS = 10;
const STORE_MS = 100;
const READ_TTL_MS = 30;
const SLOW_READ_MS = 40;
/** Shares of L1 in use at which some policies store. */
const HIGH = 0.75;

/** Every fourth object is a large one. */
function layoutOf(n: number): ObjectLayout {
  return n % 4 === 3 ? LARGE : SMALL;
}

/** Scripted behaviour of an adapter call. */
type Outcome =
  | { readonly kind: "ok" | "reject" | "throw" | "hang" }
  | { readonly kind: "some"; readonly bits: number }
  | { readonly kind: "slow"; readonly ms: number };

/** Scripted behaviour of a read-back; on a lost device it fails, or returns whatever is there. */
interface ReadOutcome {
  readonly ms: number;
  readonly fails: boolean;
}

interface AdapterScript {
  readonly outcomes: readonly Outcome[];
  readonly takesLarge: boolean;
}

/** Options of a controller. */
interface Setting {
  readonly policy: StorePolicy;
  readonly whenFull: WhenFull;
  readonly maxQueued: number;
  readonly flush: number;
  readonly maxInFlight: number;
  readonly attempts: number;
  readonly jitter: number;
  readonly adapters: readonly AdapterScript[];
  readonly reads: readonly ReadOutcome[];
}

type Call =
  | {
    readonly kind: "write" | "writeTemporary" | "load" | "read" | "touch" | "delete";
    readonly keys: readonly number[];
  }
  | { readonly kind: "forget" | "settle"; readonly keys: readonly number[] }
  | { readonly kind: "advance"; readonly ms: number }
  | { readonly kind: "evictTo" | "relieve"; readonly objects: number }
  | { readonly kind: "add"; readonly script: AdapterScript }
  | { readonly kind: "drop" | "drain" | "release"; readonly index: number }
  | { readonly kind: "flush" | "ready" | "finishReads" | "lose" | "attach" | "dispose" };

/** A call, and the number of microtask turns before the next one. */
interface Step {
  readonly call: Call;
  readonly turns: number;
}

/** Performs the next step of its script in each call; stores when the call ends, however late. */
class ScriptedAdapter implements L2Adapter {
  readonly capabilities: AdapterCapabilities;
  readonly isPrompt: boolean;
  /** Calls that hang until they are released. */
  readonly hung: (() => void)[] = [];
  readonly #clock: ManualClock;
  readonly #outcomes: readonly Outcome[];
  #calls = 0;

  constructor(clock: ManualClock, { outcomes, takesLarge }: AdapterScript) {
    this.#clock = clock;
    this.#outcomes = outcomes;
    this.isPrompt = outcomes.every(({ kind }) => kind === "ok");
    const maxObjectBytes = bytesWithTrailer(KEYS[0] as ObjectKey, SMALL);
    this.capabilities = takesLarge ? {} : { maxObjectBytes };
  }

  store(batch: readonly AdapterObject[]): Promise<StoreResult> {
    const outcome = this.#outcomes[this.#calls++ % this.#outcomes.length] as Outcome;
    switch (outcome.kind) {
      case "throw":
        throw new Error("scripted");
      case "reject":
        return Promise.reject(new Error("scripted"));
      case "hang":
        return new Promise((resolve) => this.hung.push(() => resolve(write(batch))));
      case "slow":
        return new Promise((resolve) =>
          void this.#clock.schedule(() => resolve(write(batch)), outcome.ms)
        );
      case "some":
        return Promise.resolve(write(batch, outcome.bits));
      case "ok":
        return Promise.resolve(write(batch));
    }
  }

  lookupAndLock(keys: readonly ObjectKey[]): Promise<Bitmap> {
    return Promise.resolve(new Bitmap(keys.length));
  }

  load(batch: readonly AdapterObject[]): Promise<Bitmap> {
    return Promise.resolve(new Bitmap(batch.length));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** Stores the objects in `bits`; their bytes must still be intact. */
function write(batch: readonly AdapterObject[], bits = -1): StoreResult {
  for (const { key, parts } of batch) {
    const n = numberOf(key);
    assertSameBytes(concatParts(parts), SEALED[n] as Uint8Array, `object ${n} in an adapter`);
  }
  const stored = Bitmap.from(batch, (_, i) => (bits >>> (i % 32) & 1) === 1);
  return { stored, bytes: stored.popcount() };
}

/** Memory with a limited number of read-back buffers that fails as scripted. */
class ScriptedDevice extends HostDevice {
  override isLost = false;
  /** Read-backs that have not been returned. */
  open = 0;
  /** Buffers of read-backs that have not been abandoned. */
  lent = 0;
  readonly #clock: ManualClock;
  readonly #buffers: number;
  readonly #reads: readonly ReadOutcome[];
  readonly #slabs = new Set<Slab>();
  readonly #waiters: { readonly buffers: number; readonly resolve: () => void }[] = [];
  #calls = 0;

  constructor(clock: ManualClock, buffers: number, reads: readonly ReadOutcome[]) {
    super();
    this.#clock = clock;
    this.#buffers = buffers;
    this.#reads = reads;
  }

  override createSlab(byteLength: number): Slab {
    const slab = super.createSlab(byteLength);
    this.#slabs.add(slab);
    return slab;
  }

  /** Overwrites all of its memory. */
  lose(): void {
    this.isLost = true;
    for (const { buffer } of this.#slabs) (buffer as Uint8Array).fill(0xee);
  }

  override countReadable(sizes: readonly number[]): number {
    let left = this.#buffers;
    const index = sizes.findIndex((size) => (left -= buffersFor(size)) < 0);
    return index < 0 ? sizes.length : index;
  }

  override async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    const { ms, fails } = this.#reads[this.#calls++ % this.#reads.length] as ReadOutcome;
    const buffers = requests.reduce((sum, { range }) => sum + buffersFor(range.byteLength), 0);
    assert(buffers <= this.#buffers, "a batch fits into the read-back buffers");
    if (this.#waiters.length > 0 || this.lent + buffers > this.#buffers) {
      await new Promise<void>((resolve) => this.#waiters.push({ buffers, resolve }));
    } else {
      this.lent += buffers;
    }
    if (ms > 0) await new Promise<void>((resolve) => void this.#clock.schedule(resolve, ms));
    if (fails) {
      this.#giveBack(buffers);
      throw this.isLost ? new DeviceLostError("scripted") : new Error("scripted");
    }
    const { objects } = await super.readBack(requests);
    this.open++;
    let isLent = true;
    const giveBack = (): void => {
      if (isLent) this.#giveBack(buffers);
      isLent = false;
    };
    return {
      objects,
      abandon: giveBack,
      [Symbol.dispose]: () => {
        giveBack();
        this.open--;
        // The buffer may be reused from now on.
        for (const piece of objects.flat()) piece.fill(0xdd);
      },
    };
  }

  #giveBack(buffers: number): void {
    this.lent -= buffers;
    for (;;) {
      const [next] = this.#waiters;
      if (next === undefined || this.lent + next.buffers > this.#buffers) return;
      this.#waiters.shift();
      this.lent += next.buffers;
      next.resolve();
    }
  }
}

function buffersFor(bytes: number): number {
  return Math.floor(bytes / SIZE);
}

/** History of one object since it became resident. */
interface Story {
  readonly n: number;
  /** Adapters chosen for it. */
  readonly owed: ReadonlySet<AdapterGuard>;
  readonly storedBy: Set<AdapterGuard>;
  /** Number of failed attempts, and the time of the last one. */
  readonly failures: Map<AdapterGuard, { count: number; at: number }>;
  /** Adapter calls with it that have not ended. */
  inFlight: number;
  /** Whether a lease may have prevented its eviction. */
  isRead: boolean;
}

/** A controller with its environment, and the histories of the objects. */
class World {
  readonly #setting: Setting;
  readonly #clock = new ManualClock();
  readonly #adapters = new AdapterSet();
  readonly #scripted = new Map<AdapterGuard, ScriptedAdapter>();
  readonly #callsInFlight = new Map<AdapterGuard, number>();
  readonly #devices: ScriptedDevice[];
  readonly #l1: L1Cache;
  readonly #store: StoreController;
  /** Histories of resident objects. */
  readonly #resident = new Map<number, Story>();
  /** Histories of objects that left L1 while being stored. */
  readonly #leaving = new Set<Story>();
  readonly #dropped = { full: 0, failed: 0, removed: 0, lost: 0 };
  readonly #leases: L1Lease[] = [];
  /** Pending waits, by what they wait for. */
  readonly #waiting = new Map<Promise<void>, string>();
  /** First error in a place that cannot throw. */
  #fault: unknown;
  #owed = 0;
  #isWritingTransient = false;
  /** Whether there was a reason to store before eviction. */
  #hasPressure = false;
  #isFlushed = false;
  #isDisposed = false;
  #haveAdaptersChanged = false;
  #hasLostDevice = false;

  constructor(setting: Setting) {
    this.#setting = setting;
    const device = this.#createDevice();
    this.#devices = [device];
    const l1 = this.#l1 = new L1Cache({
      device,
      clock: this.#clock,
      capacityBytes: CAPACITY * SIZE,
      policy: new LruPolicy(),
      readTtlMs: READ_TTL_MS,
    });
    for (const script of setting.adapters) this.#add(script);
    l1.addListener({
      written: (objects) => this.#noting(() => objects.forEach(({ key }) => this.#begin(key))),
      admitted: () => {
        if (l1.usedBytes > HIGH * l1.capacityBytes) this.#hasPressure = true;
      },
      removed: (key, reason) => this.#noting(() => this.#end(key, reason)),
    });
    const { policy, whenFull, attempts, jitter } = setting;
    this.#store = storeController({
      l1,
      adapters: this.#adapters,
      clock: this.#clock,
      policy,
      whenFull,
      attempts,
      random: { bytes: (length) => new Uint8Array(length).fill(jitter) },
      idleMs: IDLE_MS,
      backOffMs: BACK_OFF_MS,
      flushBytes: setting.flush * SIZE,
      maxInFlightBytes: setting.maxInFlight * SIZE,
      maxQueuedBytes: setting.maxQueued * SIZE,
      watermark: { high: HIGH, low: 0.5 },
      onDropped: (count, reason) => this.#dropped[reason] += count,
    });
  }

  async run({ call, turns }: Step): Promise<void> {
    await this.#call(call);
    this.check();
    await turnsOf(turns);
    this.check();
  }

  async #call(call: Call): Promise<void> {
    const l1 = this.#l1;
    const keys = "keys" in call ? call.keys.map(keyOf) : [];
    const includes = ({ id }: ObjectKey): boolean => keys.some((key) => key.id === id);
    switch (call.kind) {
      case "write":
        return this.#write(call.keys, {});
      case "writeTemporary":
        return this.#write(call.keys, { transient: true });
      case "load":
        return this.#load(call.keys);
      case "read":
        for (const reservation of l1.reserveRead(keys)) {
          if (reservation.status !== "success") continue;
          this.#leases.push(reservation.lease);
          const story = this.#resident.get(numberOf(reservation.lease.key));
          if (story !== undefined) story.isRead = true;
        }
        return;
      case "finishReads":
        return void l1.finishRead(this.#leases.splice(0));
      case "touch":
        return void l1.touch(keys);
      case "delete":
        return void l1.delete(keys);
      case "evictTo":
        return void l1.evictTo(call.objects * SIZE);
      case "relieve":
        return this.#relieve(call.objects * SIZE);
      case "forget":
        l1.forget(includes);
        return this.#settle(includes);
      case "settle":
        return this.#settle(includes);
      case "flush":
        return this.#settle(() => true);
      case "ready":
        return this.#await("ready", this.#store.ready());
      case "advance":
        // Work that needs no time is done before time advances, with a batch for each object if
        // necessary.
        await turnsOf(60 * CAPACITY);
        await this.#clock.advance(call.ms);
        if (call.ms >= IDLE_MS) await this.#checkPromptAdapters();
        return;
      case "add":
        this.#haveAdaptersChanged = true;
        return this.#add(call.script);
      case "drop":
      case "drain":
        return this.#remove(call.kind, call.index);
      case "release":
        return this.#release(call.index);
      case "lose":
        this.#hasLostDevice = true;
        return this.#device.lose();
      case "attach":
        return this.#attach();
      case "dispose":
        return await this.#dispose();
    }
  }

  /** Invariants at any time. */
  check(): void {
    if (this.#fault !== undefined) throw this.#fault;
    const { heldCount } = this.#l1.reportStatus();
    const status = this.#store.reportStatus();
    assertEquals(heldCount, status.unsavedObjects, "what is unsaved is held, and nothing else");
    assert(status.pendingObjects <= status.unsavedObjects, "what waits is unsaved");
    const { failed, full, removed, lost } = this.#dropped;
    const { failedObjects, droppedObjects, lostObjects } = status;
    assertEquals([failedObjects, droppedObjects, lostObjects], [failed, full + removed, lost]);
    const { whenFull, maxQueued } = this.#setting;
    // Failed objects return to the queue, next to objects queued in the meantime.
    if (whenFull !== "wait" && !this.#isFlushed && status.retriedObjects === 0) {
      const most = this.#scripted.size * maxQueued * SIZE;
      assert(status.pendingBytes <= most, `${status.pendingBytes} bytes wait`);
    }
    if (status.unsavedObjects === 0 && status.inFlightObjects === 0) this.#checkSums();
  }

  /** Lets everything finish, including hung adapters. */
  async finish(): Promise<void> {
    await this.#call({ kind: "advance", ms: IDLE_MS });
    if (this.#device.isLost) this.#l1.detach();
    this.#settle(() => true);
    for (let i = 0; i < 200 && this.#waiting.size > 0; i++) {
      await this.#call({ kind: "advance", ms: STORE_MS / 2 });
      this.check();
    }
    assertEquals([...this.#waiting.values()], [], "no wait is endless");
    const { unsavedObjects, pendingObjects, inFlightObjects } = this.#store.reportStatus();
    assertEquals([unsavedObjects, pendingObjects, inFlightObjects], [0, 0, 0]);
    if (!this.#isDisposed) this.#checkWhatIsStored();

    await this.#clock.advance(3 * STORE_MS);
    assertEquals(this.#lent, 0, "buffers that hung adapters have are abandoned");
    for (const { hung } of this.#scripted.values()) for (const release of hung) release();
    this.#l1.finishRead(this.#leases);
    await this.#dispose();
    for (const guard of this.#scripted.keys()) await guard.close();
    await this.#clock.advance(STORE_MS);
    assertEquals(this.#devices.map(({ open }) => open), this.#devices.map(() => 0), "read-backs");
    assertEquals(this.#l1.reportStatus().readLockedCount, 0);
    assertEquals(this.#clock.pendingTimers, 0, "timers");
    this.check();
    this.#l1[Symbol.dispose]();
  }

  get #device(): ScriptedDevice {
    return this.#devices.at(-1) as ScriptedDevice;
  }

  get #lent(): number {
    return this.#devices.reduce((sum, { lent }) => sum + lent, 0);
  }

  /** Whether it is known which adapters still have to answer for which objects. */
  get #isOwedExactly(): boolean {
    return this.#setting.policy.writes === "at-once" || !this.#haveAdaptersChanged;
  }

  /** Whether each attempt is an adapter call, and each adapter gets its objects. */
  get #isEachAttemptSeen(): boolean {
    return this.#isOwedExactly && !this.#haveAdaptersChanged && !this.#hasLostDevice &&
      !this.#isDisposed && this.#dropped.full === 0 &&
      this.#setting.reads.every(({ ms, fails }) => ms < READ_TTL_MS && !fails);
  }

  /** No object is counted twice or lost from the counts. */
  #checkSums(): void {
    if (!this.#isOwedExactly) return;
    let stored = 0;
    for (const guard of this.#scripted.keys()) stored += guard.reportStatus().storedObjects;
    const { failed, full, removed, lost } = this.#dropped;
    assertEquals(stored + failed + full + removed + lost, this.#owed, "objects times adapters");
  }

  /** A working adapter has everything after a while, whatever the others do. */
  async #checkPromptAdapters(): Promise<void> {
    const { policy, reads } = this.#setting;
    const isQuick = reads.every(({ ms }) => ms === 0) && policy.writes === "at-once";
    if (!isQuick || !this.#isEachAttemptSeen) return;
    await turnsOf(60 * CAPACITY);
    for (const { n, owed, storedBy } of this.#resident.values()) {
      for (const guard of owed) {
        if (this.#scripted.get(guard)?.isPrompt !== true) continue;
        assert(storedBy.has(guard), `object ${n} waits although its adapter works`);
      }
    }
  }

  /** After a flush: which adapter has what, and what has left L1. */
  #checkWhatIsStored(): void {
    const { policy, attempts } = this.#setting;
    for (const { n, owed, storedBy, failures, isRead } of this.#resident.values()) {
      if (!policy.keepsInL1 && !isRead) {
        assertEquals(storedBy.size, 0, `object ${n} is stored and stays`);
      }
      if (!this.#isEachAttemptSeen) continue;
      for (const guard of owed) {
        const isAnswered = storedBy.has(guard) || failures.get(guard)?.count === attempts ||
          wasLeftAlone(guard);
        assert(isAnswered, `object ${n} was given up by ${guard.type} too early`);
      }
    }
  }

  #createDevice(): ScriptedDevice {
    const { maxInFlight, reads } = this.#setting;
    return new ScriptedDevice(this.#clock, maxInFlight, reads);
  }

  #add(script: AdapterScript): void {
    const clock = this.#clock;
    const adapter = new ScriptedAdapter(clock, script);
    const id = this.#scripted.size;
    const timeouts = { ...DEFAULT_ADAPTER_TIMEOUTS, storeMs: STORE_MS };
    const breaker = { failures: 4, coolDownMs: 2 * BACK_OFF_MS, maxCoolDownMs: 4 * BACK_OFF_MS };
    const guard = new AdapterGuard(adapter, { id, type: `a${id}`, clock, timeouts, breaker });
    const store = guard.store.bind(guard);
    guard.store = async (objects) => {
      const stories = this.#noting(() => this.#beforeStore(guard, objects)) ?? [];
      const outcome = await store(objects);
      this.#noting(() => this.#afterStore(guard, stories, outcome.done));
      return outcome;
    };
    this.#scripted.set(guard, adapter);
    this.#adapters.add(guard);
  }

  #remove(kind: "drop" | "drain", index: number): void {
    const { all } = this.#adapters;
    const guard = all[index % Math.max(1, all.length)];
    if (guard === undefined) return;
    this.#haveAdaptersChanged = true;
    this.#adapters.retire(guard);
    const remove = (): void => {
      this.#adapters.remove(guard);
      guard.close();
    };
    if (kind === "drop") {
      guard.drain();
      return remove();
    }
    const emptied = this.#store.emptied(guard).then(() => {
      const calls = this.#isDisposed ? 0 : this.#callsInFlight.get(guard) ?? 0;
      this.#noting(() => assertEquals(calls, 0, "an adapter is emptied that still stores"));
      remove();
    });
    this.#await("emptied", emptied);
  }

  #release(index: number): void {
    const adapters = [...this.#scripted.values()];
    adapters[index % Math.max(1, adapters.length)]?.hung.shift()?.();
  }

  #attach(): void {
    if (!this.#device.isLost) return;
    const device = this.#createDevice();
    this.#l1.detach();
    this.#l1.attach(device);
    this.#devices.push(device);
  }

  async #dispose(): Promise<void> {
    this.#store[Symbol.dispose]();
    this.#isDisposed = true;
    assertEquals(this.#l1.reportStatus().heldCount, 0, "holds");
    await this.#clock.advance(0);
    assertEquals([...this.#waiting.values()], [], "no wait is left after disposal");
  }

  #write(numbers: readonly number[], options: { transient?: boolean }): void {
    for (const layout of [SMALL, LARGE]) {
      const chosen = numbers.filter((n) => layoutOf(n) === layout);
      const reservations = this.#l1.reserveWrite(chosen.map(keyOf), layout, options);
      if (reservations.some(({ status }) => status === "out-of-memory")) {
        this.#relieve(chosen.length * layout.byteLength);
      }
      const written = chosen.flatMap((n, i) => {
        const reservation = reservations[i];
        if (reservation?.status !== "success") return [];
        this.#device.upload(reservation.staged.range, [BYTES[n] as Uint8Array<ArrayBuffer>]);
        return [reservation.staged];
      });
      this.#isWritingTransient = options.transient === true;
      this.#l1.finishWrite(written);
      this.#isWritingTransient = false;
    }
  }

  #relieve(bytes: number): void {
    this.#hasPressure = true;
    this.#store.relieve(bytes);
  }

  /** Makes objects resident as a load would. */
  #load(numbers: readonly number[]): void {
    const [n] = numbers as [number];
    const writer = "prefetch";
    const [reservation] = this.#l1.reserveWrite([keyOf(n)], layoutOf(n), { writer });
    if (reservation?.status !== "success") return;
    this.#device.upload(reservation.staged.range, [BYTES[n] as Uint8Array<ArrayBuffer>]);
    const [read] = finishAndRead(this.#l1, [reservation.staged]);
    if (read?.status === "success") this.#leases.push(read.lease);
  }

  #settle(test: (key: ObjectKey) => boolean): void {
    this.#isFlushed = true;
    this.#hasPressure = true;
    const { full } = this.#dropped;
    const stories = [...this.#resident.values(), ...this.#leaving]
      .filter(({ n }) => test(keyOf(n)));
    const settled = this.#store.settle({ matches: test }).then(() => {
      if (!this.#isDisposed) this.#noting(() => this.#checkSettled(stories));
    });
    assertEquals(this.#dropped.full, full, "what is flushed is not dropped");
    this.#await("settled", settled);
  }

  #checkSettled(stories: readonly Story[]): void {
    for (const { n, inFlight } of stories) {
      assertEquals(inFlight, 0, `object ${n} is settled while it is stored`);
    }
  }

  #await(what: string, promise: Promise<void>): void {
    this.#waiting.set(promise, what);
    promise.then(() => this.#waiting.delete(promise));
  }

  #begin(key: ObjectKey): void {
    const n = numberOf(key);
    const { policy } = this.#setting;
    assert(!this.#isWritingTransient, `object ${n} is transient`);
    const object = { key, layout: layoutOf(n) };
    const takers = this.#isDisposed ? [] : this.#adapters.storing;
    const targets = policy.targets?.(object, takers) ?? takers;
    const owed = new Set(takers.filter((guard) => {
      const { maxObjectBytes = Infinity } = guard.capabilities;
      return targets.some(({ id }) => id === guard.id) &&
        bytesWithTrailer(key, object.layout) <= maxObjectBytes;
    }));
    this.#owed += owed.size;
    this.#resident.set(n, {
      n,
      owed,
      storedBy: new Set(),
      failures: new Map(),
      inFlight: 0,
      isRead: false,
    });
  }

  #end(key: ObjectKey, reason: L1RemovalReason): void {
    const n = numberOf(key);
    const story = this.#resident.get(n);
    if (story === undefined) return;
    this.#resident.delete(n);
    if (story.inFlight > 0) this.#leaving.add(story);
    if (reason === "device-lost" || reason === "forgotten" || this.#isDisposed) return;
    assertEquals(story.inFlight, 0, `object ${n} is ${reason} while it is stored`);
    if (reason === "released") assert(story.storedBy.size > 0, `object ${n} is nowhere`);
    if (!this.#isEachAttemptSeen) return;
    for (const guard of story.owed) {
      const failures = story.failures.get(guard)?.count ?? 0;
      const isAnswered = story.storedBy.has(guard) || failures === this.#setting.attempts ||
        wasLeftAlone(guard);
      assert(isAnswered, `object ${n} is ${reason} before ${guard.type} has answered`);
    }
  }

  #beforeStore(guard: AdapterGuard, objects: readonly AdapterObject[]): Story[] {
    assert(objects.length > 0, "no adapter gets an empty batch");
    assert(!this.#isDisposed, "nothing is stored after the end");
    const mayWrite = this.#setting.policy.writes === "at-once" || this.#hasPressure;
    assert(mayWrite, "nothing is about to be evicted");
    const calls = (this.#callsInFlight.get(guard) ?? 0) + 1;
    this.#callsInFlight.set(guard, calls);
    assert(calls <= 2, `${guard.type} has ${calls} batches`);
    const now = this.#clock.now();
    const { attempts, jitter } = this.#setting;
    return objects.map(({ key }) => {
      const n = numberOf(key);
      const story = this.#resident.get(n);
      if (story === undefined) throw new Error(`object ${n} is stored but was never written`);
      assert(this.#l1.has(key), `object ${n} is stored but not found`);
      assert(!story.storedBy.has(guard), `object ${n} is stored twice`);
      if (this.#isOwedExactly) {
        assert(story.owed.has(guard), `object ${n} is not for ${guard.type}`);
      }
      const { count = 0, at = 0 } = story.failures.get(guard) ?? {};
      assert(count < attempts, `object ${n} is tried ${count + 1} times`);
      const rest = count === 0 ? 0 : BACK_OFF_MS * 2 ** (count - 1) * (0.5 + jitter / 256);
      assert(now - at >= rest, `object ${n} is tried again after ${now - at} ms`);
      story.inFlight++;
      return story;
    });
  }

  #afterStore(guard: AdapterGuard, stories: readonly Story[], done: Bitmap): void {
    this.#callsInFlight.set(guard, (this.#callsInFlight.get(guard) ?? 0) - 1);
    for (const [i, story] of stories.entries()) {
      story.inFlight--;
      if (story.inFlight === 0) this.#leaving.delete(story);
      const count = (story.failures.get(guard)?.count ?? 0) + 1;
      if (done.test(i)) story.storedBy.add(guard);
      else story.failures.set(guard, { count, at: this.#clock.now() });
    }
  }

  /** Records what a listener finds wrong, because its caller only logs errors. */
  #noting<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.#fault ??= error;
      return undefined;
    }
  }
}

/** Runs promise reactions, and those that they cause. */
async function turnsOf(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await Promise.resolve();
}

function keyOf(n: number): ObjectKey {
  return KEYS[n] as ObjectKey;
}

function numberOf(key: ObjectKey): number {
  return NUMBERS.get(key.id) as number;
}

/** Each object goes to every second adapter. */
const everySecond: StorePolicy = {
  name: "every second",
  writes: "at-once",
  keepsInL1: true,
  targets: ({ key }, adapters) => adapters.filter(({ id }) => (id + numberOf(key)) % 2 === 0),
};

const outcomes: fc.Arbitrary<Outcome[]> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<Outcome[]>([{ kind: "ok" }]) },
  { weight: 1, arbitrary: fc.constant<Outcome[]>([{ kind: "hang" }]) },
  {
    weight: 4,
    arbitrary: fc.array(
      fc.oneof(
        { weight: 4, arbitrary: fc.constant<Outcome>({ kind: "ok" }) },
        { weight: 2, arbitrary: fc.record({ kind: fc.constant("some"), bits: fc.nat(15) }) },
        {
          weight: 4,
          arbitrary: fc.constantFrom<Outcome>(
            { kind: "reject" },
            { kind: "reject" },
            { kind: "throw" },
            { kind: "hang" },
          ),
        },
        {
          weight: 2,
          arbitrary: fc.record({
            kind: fc.constant("slow"),
            ms: fc.constantFrom(1, IDLE_MS, BACK_OFF_MS, STORE_MS - 1, STORE_MS + BACK_OFF_MS),
          }),
        },
      ) as fc.Arbitrary<Outcome>,
      { minLength: 1, maxLength: 5 },
    ),
  },
);

const script: fc.Arbitrary<AdapterScript> = fc.record({
  outcomes,
  takesLarge: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.constant(false)),
});

const reads: fc.Arbitrary<ReadOutcome[]> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<ReadOutcome[]>([{ ms: 0, fails: false }]) },
  {
    weight: 3,
    arbitrary: fc.array(
      fc.record({
        ms: fc.constantFrom(0, 0, 3, READ_TTL_MS - 1, SLOW_READ_MS),
        fails: fc.constantFrom(false, false, false, true),
      }),
      { minLength: 1, maxLength: 4 },
    ),
  },
);

const settings: fc.Arbitrary<Setting> = fc.record({
  policy: fc.constantFrom(defaultStore, defaultStore, skipL1, onEvict, everySecond),
  whenFull: fc.constantFrom<WhenFull>("wait", "drop_new", "drop_oldest"),
  maxQueued: fc.constantFrom(3, 100, 100),
  flush: fc.constantFrom(1, 2, 5, 100),
  maxInFlight: fc.constantFrom(8, 64),
  attempts: fc.integer({ min: 1, max: 3 }),
  jitter: fc.constantFrom(0, 128, 255),
  adapters: fc.array(script, { minLength: 1, maxLength: 3 }),
  reads,
});

const keys = fc.uniqueArray(fc.nat(KEYS.length - 1), { minLength: 1, maxLength: 4 });

function kind<const K extends string>(...kinds: K[]): fc.Arbitrary<K> {
  return fc.constantFrom(...kinds);
}

const calls: fc.Arbitrary<Call> = fc.oneof(
  { weight: 30, arbitrary: fc.record({ kind: kind("write"), keys }) },
  {
    weight: 18,
    arbitrary: fc.record({
      kind: kind("advance"),
      ms: fc.constantFrom(1, IDLE_MS, IDLE_MS, BACK_OFF_MS, SLOW_READ_MS, STORE_MS),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: kind("writeTemporary", "load", "read", "touch", "touch", "delete"),
      keys,
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: kind("forget", "forget", "settle"), keys }) },
  {
    weight: 6,
    arbitrary: fc.record({ kind: kind("evictTo", "evictTo", "relieve"), objects: fc.nat(4) }),
  },
  { weight: 6, arbitrary: fc.record({ kind: kind("flush", "ready", "finishReads") }) },
  { weight: 3, arbitrary: fc.record({ kind: kind("release"), index: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: kind("add"), script }) },
  { weight: 1, arbitrary: fc.record({ kind: kind("drop", "drain"), index: fc.nat(2) }) },
  { weight: 3, arbitrary: fc.record({ kind: kind("lose", "attach", "attach") }) },
  { weight: 1, arbitrary: fc.record({ kind: kind("dispose") }) },
);

/** Whether attempts were skipped because a circuit was open: they are not calls then. */
function wasLeftAlone(guard: AdapterGuard): boolean {
  return guard.reportStatus().circuits.store.openCount > 0;
}

const steps: fc.Arbitrary<Step> = fc.record({
  call: calls,
  turns: fc.constantFrom(0, 0, 1, 2, 5, 40),
});

Deno.test("StoreController keeps its promises, whatever is done to it", async () => {
  const sequences = fc.array(steps, { minLength: 4, maxLength: 20, size: "max" });
  await fc.assert(
    fc.asyncProperty(settings, sequences, async (setting, sequence) => {
      const world = new World(setting);
      for (const step of sequence) await world.run(step);
      await world.finish();
    }),
    runs(3_000),
  );
});
