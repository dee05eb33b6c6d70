import {
  type AdapterCapabilities,
  type AdapterObject,
  type AdapterUsage,
  Bitmap,
  type CallOptions,
  type Clock,
  concatParts,
  type DeleteResult,
  fillParts,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
} from "../../src/adapter/contract.ts";
import { tailBytes, verifyAnyLayout, writeTrailer } from "../../src/adapter/object_trailer.ts";
import { contentOf, MODELS, staleLayout } from "./sim_content.ts";
import type { SimBuffers } from "./sim_buffers.ts";
import type { Fault, FaultPhases } from "./sim_faults.ts";
import type { SimRandom } from "./sim_random.ts";
import type { SimStore } from "./sim_store.ts";

/** Calls of one adapter that never end: after 8 of them the cache pauses it forever. */
const MAX_ENDLESS = 4;
const HASH = 0x9e3779b1;

/** Options of a {@linkcode SimAdapter}. */
export interface SimAdapterOptions {
  readonly store: SimStore;
  readonly phases: FaultPhases;
  readonly clock: Clock;
  readonly random: SimRandom;
  /** Records an event. */
  readonly note: (event: string, details?: string) => void;
  /** Counts an event without recording it. */
  readonly count: (event: string) => void;
  /** Buffers in use by the calls of all adapters. */
  readonly buffers: SimBuffers;
  /** Called with violations of the contract by the cache. */
  readonly violated: (what: string) => void;
}

/** A call that stores objects. */
interface StoringCall {
  readonly keys: readonly ObjectKey[];
  readonly startedAt: number;
}

/** A call that waits for the end of its phase. */
interface HungCall {
  readonly release: () => void;
}

/** An adapter on top of a {@linkcode SimStore} that behaves as its phases demand. */
export class SimAdapter implements L2Adapter {
  readonly capabilities: AdapterCapabilities;
  readonly store: L2Adapter["store"];
  readonly lookupAndLock: L2Adapter["lookupAndLock"];
  readonly load: L2Adapter["load"];
  readonly delete?: (keys: readonly ObjectKey[], options: CallOptions) => Promise<DeleteResult>;
  readonly list?: (options: ListOptions) => AsyncGenerator<ListedObject>;
  readonly #options: SimAdapterOptions;
  readonly #locks = new Map<string, number>();
  readonly #hung = new Set<HungCall>();
  readonly #cancels = new Set<() => void>();
  /** Calls in flight that store objects. */
  readonly #storing = new Set<StoringCall>();
  #endless = 0;
  #endlessLocks = 0;
  #isClosed = false;

  constructor(options: SimAdapterOptions) {
    const { kind } = options.store;
    this.#options = options;
    this.capabilities = {
      shared: true,
      durable: true,
      evicts: kind.capacityBytes !== undefined,
      ...(kind.maxObjectBytes === undefined ? {} : { maxObjectBytes: kind.maxObjectBytes }),
    };
    this.store = (objects, { signal }) => this.#store(objects, signal);
    this.lookupAndLock = (keys, options) => this.#lookup(keys, options);
    this.load = (objects, { signal }) => this.#load(objects, signal);
    if (kind.canDelete) this.delete = (keys, { signal }) => this.#delete(keys, signal);
    if (kind.canList) this.list = (options) => this.#list(options);
  }

  /** Locks that have not been released, without those of calls that never end. */
  get lockCount(): number {
    return this.#locks.values().reduce((sum, count) => sum + count, -this.#endlessLocks);
  }

  /** Objects that calls in flight may still store. */
  storing(): ObjectKey[] {
    return [...this.#storing].flatMap(({ keys }) => keys);
  }

  /** Whether a call that started after `since` is storing an object. */
  isStoring({ id }: ObjectKey, since: number): boolean {
    return this.#storing.values().some(({ keys, startedAt }) =>
      startedAt > since && keys.some((key) => key.id === id)
    );
  }

  /** Ends hanging calls, except those that never end. */
  release(): void {
    for (const call of [...this.#hung]) call.release();
  }

  unlock(keys: readonly ObjectKey[]): void {
    const { violated, note, store } = this.#options;
    note(`${store.kind.type} unlock`, `${keys.length}`);
    for (const { id } of keys) {
      const count = this.#locks.get(id) ?? 0;
      if (count === 0) violated(`${store.kind.type}: unlocks what is not locked: ${id}`);
      else if (count === 1) this.#locks.delete(id);
      else this.#locks.set(id, count - 1);
    }
  }

  async usage({ signal }: CallOptions): Promise<AdapterUsage> {
    await this.#call("usage", 0, signal);
    const { store } = this.#options;
    return { usedBytes: store.bytes, objectCount: store.held.size };
  }

  reportStatus(): Readonly<Record<string, unknown>> {
    if (this.#options.phases.faultOf("status") === "nonsense") {
      throw new Error("simulated: no status");
    }
    return { objects: this.#options.store.held.size };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const cancel of this.#cancels) cancel();
    this.#cancels.clear();
    this.#storing.clear();
    this.#locks.clear();
    this.#endlessLocks = 0;
    return Promise.resolve();
  }

  async #store(objects: readonly AdapterObject[], signal: AbortSignal): Promise<StoreResult> {
    const { store, random, violated, clock, buffers } = this.#options;
    const { type } = store.kind;
    const call = { keys: objects.map(({ key }) => key), startedAt: clock.now() };
    using _lent = buffers.lend(objects, "store", violated);
    const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.#storing.add(call);
    try {
      const fault = await this.#call("store", bytes, signal, call.keys);
      if (fault === "nonsense") return { stored: new Bitmap(1 + objects.length), bytes: NaN };
      const isSound = ({ key, parts, byteLength }: AdapterObject): boolean =>
        verifyAnyLayout(key, byteLength, parts) === null;
      // Reads the objects only now, possibly long after the caller has stopped waiting.
      if (!objects.every(isSound)) violated(`${type}: its buffers hold what is not sealed`);
      const share = fault === "full" ? random.pick([0, 0, 0.5]) : 1;
      const stored = Bitmap.from(objects, (object) => {
        const { key, parts, byteLength } = object;
        if (fault === "flaky" && this.#isUnlucky(key)) return false;
        if (!random.chance(share)) return false;
        if (byteLength > (store.kind.maxObjectBytes ?? Infinity)) {
          violated(`${type}: is given an object that is too large`);
        }
        if (fault === "losing" && random.chance(0.5)) return true;
        const copy = concatParts(parts);
        store.put({ key, bytes: fault === "corrupting" ? this.#spoilAtRest(key, copy) : copy });
        return true;
      });
      this.#makeRoom();
      return { stored, bytes };
    } finally {
      this.#storing.delete(call);
    }
  }

  async #lookup(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const { store, random } = this.#options;
    const fault = await this.#call("lookup", 0, signal, keys);
    if (fault === "nonsense") return undefined as unknown as Bitmap;
    if (fault === "losing") this.#lose(0.05);
    const held = Bitmap.from(keys, (key) => {
      const isThere = store.has(key);
      const isLie = (fault === "flaky" && isThere && this.#isUnlucky(key)) ||
        (fault === "lying" && random.chance(0.3));
      if (isLie && isThere) store.denied.add(key.id);
      return isLie ? !isThere : isThere;
    });
    const stops = prefix && store.kind.stopsAtGap;
    const found = stops ? new Bitmap(keys.length, held.countLeadingOnes()) : held;
    for (const { id } of found.gather(keys)) this.#locks.set(id, (this.#locks.get(id) ?? 0) + 1);
    return found;
  }

  async #load(objects: readonly AdapterObject[], signal: AbortSignal): Promise<Bitmap> {
    const { store, random, violated, buffers } = this.#options;
    using _lent = buffers.lend(objects, "load", violated);
    const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
    for (const { key } of objects) {
      if (!this.#locks.has(key.id)) violated(`${store.kind.type}: loads what it did not lock`);
    }
    const keys = objects.map(({ key }) => key);
    const fault = await this.#call("load", bytes, signal, keys, objects).catch((error: unknown) => {
      // A call that fails may have filled some buffers, as a late one may.
      for (const { parts } of objects) parts[0]?.fill(0x55, 0, 8);
      throw error;
    });
    if (fault === "nonsense") return new Bitmap(objects.length + 3, objects.length + 3);
    return Bitmap.from(objects, ({ key, parts, byteLength }) => {
      if (fault === "flaky" && this.#isUnlucky(key)) return false;
      const held = store.held.get(key.id);
      if (fault !== "corrupting" || held === undefined) {
        const isFilled = fillParts(parts, held?.bytes);
        // A store that trusts its own wrong lookup.
        if (isFilled || fault !== "lying") return isFilled;
        store.spoiled.add(key.id);
        return true;
      }
      const spoilt = this.#spoil(key, byteLength, held.bytes);
      if (spoilt !== held.bytes) store.spoiled.add(key.id);
      fillParts(parts, spoilt);
      return random.chance(0.9) && spoilt.byteLength === byteLength;
    });
  }

  async #delete(keys: readonly ObjectKey[], signal: AbortSignal): Promise<DeleteResult> {
    const { store } = this.#options;
    const fault = await this.#call("delete", 0, signal, keys);
    if (fault === "nonsense") return { deleted: new Bitmap(0), bytes: -1 };
    let bytes = 0;
    const deleted = Bitmap.from(keys, (key) => {
      const held = store.held.get(key.id);
      if (held === undefined || this.#locks.has(key.id)) return false;
      if (fault === "flaky" && this.#isUnlucky(key)) return false;
      bytes += held.bytes.byteLength;
      return store.held.delete(key.id);
    });
    return { deleted, bytes };
  }

  async *#list({ model, signal }: ListOptions): AsyncGenerator<ListedObject> {
    const { store } = this.#options;
    let listed = 0;
    for (const { key, bytes } of [...store.held.values()]) {
      if (listed++ % 64 === 0) {
        const fault = await this.#call("list", 0, signal);
        if (fault === "nonsense") yield { key, byteLength: NaN };
      }
      if (model !== undefined && key.model !== model) continue;
      yield { key, byteLength: bytes.byteLength };
    }
  }

  /** Waits for the duration of a call; returns the fault of its answer. */
  async #call(
    operation: string,
    bytes: number,
    signal: AbortSignal,
    keys: readonly ObjectKey[] = [],
    loads: readonly AdapterObject[] = [],
  ): Promise<Fault> {
    const { store: { kind }, random, note, count, phases } = this.#options;
    if (this.#isClosed) throw new Error("simulated: closed");
    const fault = phases.faultOf(operation);
    note(`${kind.type} ${operation}`, `${keys.length} ${fault}`);
    count(`fault ${fault}`);
    if (fault === "hanging") {
      const end = random.weighted({ reject: 2, late: 2, endless: 1, slow: 1 });
      if (end === "endless" && this.#endless < MAX_ENDLESS) return await this.#never(loads);
      await this.#waitForRelease(phases.leftMs + random.between(0, 1000));
      if (end === "reject") throw new Error("simulated: connection reset");
    } else {
      const factor = fault === "slow" ? random.magnitude(10, 5000) : random.magnitude(0.5, 2);
      const ms = (kind.latencyMs + bytes * kind.msPerByte) * factor;
      await this.#wait(ms, kind.obeysSignals ? signal : undefined);
    }
    if (fault === "rejecting" && random.chance(0.9)) throw new Error(`simulated: no ${operation}`);
    return fault;
  }

  #never(loads: readonly AdapterObject[]): Promise<never> {
    const { note, store } = this.#options;
    this.#endless++;
    // The cache cannot unlock objects of a load that never ends.
    this.#endlessLocks += loads.length;
    note(`${store.kind.type} hangs for ever`);
    return new Promise(() => {});
  }

  async #wait(ms: number, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.schedule(resolve, ms);
    const stop = (): void => {
      cancel();
      resolve();
    };
    this.#cancels.add(stop);
    signal?.addEventListener("abort", stop, { once: true });
    await promise;
    signal?.removeEventListener("abort", stop);
    this.#cancels.delete(stop);
    if (this.#isClosed) throw new Error("simulated: closed");
    if (signal?.aborted) throw signal.reason;
  }

  async #waitForRelease(ms: number): Promise<void> {
    const { clock } = this.#options;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.schedule(resolve, ms);
    const stop = (): void => {
      cancel();
      resolve();
    };
    const call: HungCall = { release: stop };
    this.#hung.add(call);
    this.#cancels.add(stop);
    await promise;
    this.#hung.delete(call);
    this.#cancels.delete(stop);
    if (this.#isClosed) throw new Error("simulated: closed");
  }

  /** Some keys fail for some hours. */
  #isUnlucky({ digest }: ObjectKey): boolean {
    const hours = Math.floor(this.#options.clock.now() / (2 * 3600_000));
    return (Math.imul((digest[0] ?? 0) + 256 * hours, HASH) >>> 24) % 4 === 0;
  }

  #lose(share: number): void {
    const { store: { held }, random } = this.#options;
    for (const id of [...held.keys()]) {
      if (random.chance(share) && !this.#locks.has(id)) held.delete(id);
    }
  }

  #makeRoom(): void {
    const { store } = this.#options;
    const { capacityBytes } = store.kind;
    if (capacityBytes === undefined) return;
    let bytes = store.bytes;
    for (const [id, held] of store.held) {
      if (bytes <= capacityBytes) return;
      if (this.#locks.has(id)) continue;
      bytes -= held.bytes.byteLength;
      store.held.delete(id);
    }
  }

  /** Damages an object as a bad disk would. */
  #spoilAtRest(key: ObjectKey, bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const { store, random, note } = this.#options;
    if (random.chance(0.6)) return bytes;
    store.spoiled.add(key.id);
    note("spoiled at rest");
    return random.chance(0.3) ? bytes.slice(0, -4) : flipped(bytes, random);
  }

  /**
   * Damages an object as a bad connection would: another object of that size, an older version, or
   * one flipped bit.
   */
  #spoil(
    key: ObjectKey,
    byteLength: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): Uint8Array<ArrayBuffer> {
    const { store, random, note } = this.#options;
    const how = random.weighted({ none: 2, flipped: 2, swapped: 2, stale: 2, truncated: 1 });
    note(`spoiled ${how}`);
    if (how === "none") return bytes;
    if (how === "flipped") return flipped(bytes, random);
    if (how === "truncated") return bytes.slice(0, -1);
    if (how === "swapped") {
      const others = [...store.held.values()]
        .filter((other) => other.bytes.byteLength === byteLength && other.key.id !== key.id);
      return others.length === 0 ? flipped(bytes, random) : random.pick(others).bytes;
    }
    return staleObject(key, byteLength);
  }
}

function flipped(bytes: Uint8Array<ArrayBuffer>, random: SimRandom): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  const bit = random.below(8 * copy.byteLength);
  copy[bit >>> 3] = (copy[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
  return copy;
}

/** Object stored under that key when the model had other weights. */
function staleObject(key: ObjectKey, byteLength: number): Uint8Array<ArrayBuffer> {
  const layout = MODELS.find(({ name }) => name === key.model)?.groups[key.objectGroup]?.layout;
  const payloadBytes = byteLength - tailBytes(key);
  const payload = contentOf(key, payloadBytes, 1);
  const tail = new Uint8Array(tailBytes(key));
  writeTrailer(key, staleLayout(layout ?? { byteLength: payloadBytes, fingerprint: tail }), [
    payload,
    tail,
  ]);
  return concatParts([payload, tail]);
}
