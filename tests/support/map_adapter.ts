import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import {
  type AdapterObject,
  Bitmap,
  concatParts,
  fillParts,
  type L2Adapter,
  type ObjectKey,
  type StoreResult,
} from "../../src/l2/adapter.ts";
import { AdapterGuard, DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_guard.ts";
import { sealObject, tailBytes } from "../../src/l2/object_trailer.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { testBytes } from "./objects.ts";

/** What a {@linkcode MapAdapter} waits for, or throws, before it does a call's work. */
export type Before<Item> = (items: readonly Item[], signal: AbortSignal) => void | Promise<void>;

/** Objects in a Map, with every lock and call counted; a test may hook into each call. */
export class MapAdapter implements L2Adapter {
  readonly capabilities = {};
  /** What is stored, by key id. */
  readonly objects = new Map<string, Uint8Array>();
  /** Batches of `store`, as key ids. */
  readonly stores: string[][] = [];
  /** Batches of `lookupAndLock`, as key ids. */
  readonly lookups: string[][] = [];
  /** Batches of `load`, as key ids. */
  readonly loads: string[][] = [];
  /** Whether it was disposed. */
  isDisposed = false;
  /** Hooks: run before a call does its work. */
  beforeStore: Before<AdapterObject> = () => {};
  beforeLookup: Before<ObjectKey> = () => {};
  beforeLoad: Before<AdapterObject> = () => {};
  readonly #locks = new Map<string, number>();

  /** Locks that nobody gave back. */
  get lockCount(): number {
    return [...this.#locks.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Puts objects there, sealed, with the bytes that belong under their keys. */
  seed(keys: readonly ObjectKey[], layout: ObjectLayout): void {
    for (const key of keys) {
      const bytes = new Uint8Array(layout.byteLength + tailBytes(key));
      bytes.set(testBytes(key, layout.byteLength));
      sealObject(key, layout, [bytes]);
      this.objects.set(key.id, bytes);
    }
  }

  /** Whether all objects are there. */
  hasAll(keys: readonly ObjectKey[]): boolean {
    return keys.every((key) => this.objects.has(key.id));
  }

  async store(
    batch: readonly AdapterObject[],
    { signal }: { signal: AbortSignal },
  ): Promise<StoreResult> {
    this.stores.push(batch.map(({ key }) => key.id));
    await this.beforeStore(batch, signal);
    for (const { key, parts } of batch) this.objects.set(key.id, concatParts(parts));
    const bytes = batch.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return { stored: new Bitmap(batch.length, batch.length), bytes };
  }

  async lookupAndLock(
    keys: readonly ObjectKey[],
    { signal }: { signal: AbortSignal },
  ): Promise<Bitmap> {
    this.lookups.push(keys.map(({ id }) => id));
    await this.beforeLookup(keys, signal);
    const found = keys.map(({ id }) => this.objects.has(id));
    for (const [i, { id }] of keys.entries()) {
      if (found[i]) this.#locks.set(id, (this.#locks.get(id) ?? 0) + 1);
    }
    return bits(found);
  }

  unlock(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) {
      const count = this.#locks.get(id) ?? 0;
      if (count === 0) throw new Error(`Unlocked what is not locked: ${id}`);
      this.#locks.set(id, count - 1);
    }
  }

  async load(
    batch: readonly AdapterObject[],
    { signal }: { signal: AbortSignal },
  ): Promise<Bitmap> {
    this.loads.push(batch.map(({ key }) => key.id));
    await this.beforeLoad(batch, signal);
    return bits(batch.map(({ key, parts }) => fillParts(parts, this.objects.get(key.id))));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.isDisposed = true;
    return Promise.resolve();
  }
}

/** The cache's own view of adapters, with the first deadlines of each kind of call. */
export function guardAll(adapters: readonly L2Adapter[], clock: Clock): AdapterGuard[] {
  const timeouts = DEFAULT_ADAPTER_TIMEOUTS;
  return adapters.map((adapter, index) =>
    new AdapterGuard(adapter, { index, type: `map${index}`, clock, timeouts })
  );
}

function bits(set: readonly boolean[]): Bitmap {
  return Bitmap.of(set.length, set.flatMap((isSet, i) => isSet ? [i] : []));
}
