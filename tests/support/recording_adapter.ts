import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import {
  type AdapterObject,
  Bitmap,
  type CallOptions,
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
import { AdapterGuard } from "../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";
import type { Clock } from "../../src/base/clock.ts";
import { sealedObject } from "./sealed_objects.ts";

/** Runs before a call; may wait or throw. */
export type Before<Item> = (items: readonly Item[], signal: AbortSignal) => void | Promise<void>;

/**
 * Objects in a Map, with every call and lock recorded, and a hook for each call. The lookup of a
 * chain stops at its first gap.
 */
export class RecordingAdapter implements L2Adapter {
  readonly capabilities = {};
  /** The stored objects by key id. */
  readonly held = new Map<string, Uint8Array<ArrayBuffer>>();
  /** The key ids of each call. */
  readonly stores: string[][] = [];
  readonly lookups: string[][] = [];
  readonly loads: string[][] = [];
  readonly deletes: string[][] = [];
  isDisposed = false;
  beforeStore: Before<AdapterObject> = () => {};
  beforeLookup: Before<ObjectKey> = () => {};
  beforeLoad: Before<AdapterObject> = () => {};
  beforeDelete: Before<ObjectKey> = () => {};
  readonly #locks = new Map<string, number>();
  readonly #keys = new Map<string, ObjectKey>();

  /** Locks that have not been released. */
  get lockCount(): number {
    return [...this.#locks.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Adds objects as if they had been stored. */
  seed(keys: readonly ObjectKey[], layout: ObjectLayout): void {
    for (const key of keys) {
      this.#keys.set(key.id, key);
      this.held.set(key.id, concatParts(sealedObject(key, layout).parts));
    }
  }

  /** Number of the given objects that exist. */
  count(keys: readonly ObjectKey[]): number {
    return keys.filter(({ id }) => this.held.has(id)).length;
  }

  async store(batch: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    this.stores.push(batch.map(({ key }) => key.id));
    await this.beforeStore(batch, signal);
    for (const { key, parts } of batch) {
      this.#keys.set(key.id, key);
      this.held.set(key.id, concatParts(parts));
    }
    const bytes = batch.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return { stored: new Bitmap(batch.length, batch.length), bytes };
  }

  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    this.lookups.push(keys.map(({ id }) => id));
    await this.beforeLookup(keys, signal);
    const held = Bitmap.from(keys, ({ id }) => this.held.has(id));
    const found = prefix ? new Bitmap(keys.length, held.countLeadingOnes()) : held;
    for (const { id } of found.gather(keys)) this.#locks.set(id, (this.#locks.get(id) ?? 0) + 1);
    return found;
  }

  unlock(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) {
      const count = this.#locks.get(id) ?? 0;
      if (count === 0) throw new Error(`Not locked: ${id}`);
      this.#locks.set(id, count - 1);
    }
  }

  async load(batch: readonly AdapterObject[], { signal }: CallOptions): Promise<Bitmap> {
    this.loads.push(batch.map(({ key }) => key.id));
    await this.beforeLoad(batch, signal);
    return Bitmap.from(batch, ({ key, parts }) => fillParts(parts, this.held.get(key.id)));
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    this.deletes.push(keys.map(({ id }) => id));
    await this.beforeDelete(keys, signal);
    let bytes = 0;
    const deleted = Bitmap.from(keys, ({ id }) => {
      if ((this.#locks.get(id) ?? 0) > 0) return false;
      bytes += this.held.get(id)?.byteLength ?? 0;
      return this.held.delete(id);
    });
    return { deleted, bytes };
  }

  async *list({ model }: ListOptions): AsyncGenerator<ListedObject> {
    for (const [id, { byteLength }] of [...this.held]) {
      const key = this.#keys.get(id);
      if (key !== undefined && (model === undefined || key.model === model)) {
        yield { key, byteLength };
      }
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.isDisposed = true;
    return Promise.resolve();
  }
}

/** Guarded adapters with default deadlines. */
export function guardAll(adapters: readonly L2Adapter[], clock: Clock): AdapterGuard[] {
  const timeouts = DEFAULT_ADAPTER_TIMEOUTS;
  return adapters.map((adapter, index) =>
    new AdapterGuard(adapter, { id: index, type: `adapter${index}`, clock, timeouts })
  );
}

/** A promise that settles when a test says so. */
export function gate(): { promise: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { promise, open: resolve };
}
