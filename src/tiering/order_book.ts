import type { ObjectKey } from "../keys/object_key.ts";
import { LruPolicy } from "../l1/lru.ts";
import { SaltUsage } from "../l1/salt_usage.ts";
import type { StoredObject } from "../l2/adapter_guard.ts";

/** An object in an adapter. */
export interface TrackedObject {
  readonly key: ObjectKey;
  readonly bytes: number;
}

/** What an adapter is known to hold, least recently used first. */
export class OrderBook {
  readonly #objects = new Map<string, TrackedObject>();
  readonly #order = new UseOrder();
  readonly #orderBySalt = new Map<string, UseOrder>();
  readonly #usage = new SaltUsage();
  /** Objects that were used before they were listed. */
  readonly #unlisted = new Map<string, ObjectKey>();
  #isSeeding: boolean;
  #bytes = 0;

  constructor(isSeeding: boolean) {
    this.#isSeeding = isSeeding;
  }

  /** Whether there may be more objects than those in the book. */
  get isSeeding(): boolean {
    return this.#isSeeding;
  }

  get size(): number {
    return this.#objects.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  bytesOf(salt: string): number {
    return this.#usage.of(salt);
  }

  salts(): Iterable<string> {
    return this.#usage.all().keys();
  }

  get(id: string): TrackedObject | undefined {
    return this.#objects.get(id);
  }

  /** The objects, those of one salt or all, the first to leave first. */
  *oldest(salt?: string): Generator<TrackedObject> {
    const order = salt === undefined ? this.#order : this.#orderBySalt.get(salt);
    for (const id of order?.oldest() ?? []) {
      const object = this.#objects.get(id);
      if (object !== undefined) yield object;
    }
  }

  stored(objects: readonly StoredObject[]): void {
    for (const { key, byteLength } of objects) this.#put({ key, bytes: byteLength });
    this.#renew(objects.map(({ key }) => key));
  }

  used(keys: readonly ObjectKey[]): void {
    const isKnown = keys.every(({ id }) => this.#objects.has(id));
    if (isKnown) return this.#renew(keys);
    const isTracked = (key: ObjectKey): boolean => {
      if (this.#objects.has(key.id)) return true;
      // How large it is, only the listing tells.
      if (this.#isSeeding) this.#unlisted.set(key.id, key);
      return this.#isSeeding;
    };
    this.#renew(keys.filter(isTracked));
  }

  /** Adds an object that was there before, as older than what was used since. */
  seed(object: TrackedObject): void {
    const { key: { id, cacheSalt } } = object;
    if (this.#objects.has(id)) return;
    if (!this.#unlisted.has(id)) {
      this.#order.seed(id);
      this.#orderOf(cacheSalt).seed(id);
    }
    this.#put(object);
  }

  endSeeding(): void {
    this.#isSeeding = false;
    for (const key of [...this.#unlisted.values()]) this.removed(key);
  }

  removed(key: ObjectKey): void {
    const { id, cacheSalt } = key;
    const object = this.#objects.get(id);
    if (object === undefined && !this.#unlisted.delete(id)) return;
    this.#objects.delete(id);
    this.#bytes -= object?.bytes ?? 0;
    this.#usage.add(cacheSalt, -(object?.bytes ?? 0));
    this.#order.removed(id);
    const order = this.#orderOf(cacheSalt);
    order.removed(id);
    if (order.isEmpty) this.#orderBySalt.delete(cacheSalt);
  }

  #put(object: TrackedObject): void {
    const { key: { id, cacheSalt }, bytes } = object;
    const more = bytes - (this.#objects.get(id)?.bytes ?? 0);
    this.#objects.set(id, object);
    this.#unlisted.delete(id);
    this.#bytes += more;
    this.#usage.add(cacheSalt, more);
  }

  #renew(keys: readonly ObjectKey[]): void {
    this.#order.renew(keys.map(({ id }) => id));
    for (const [salt, own] of Map.groupBy(keys, ({ cacheSalt }) => cacheSalt)) {
      this.#orderOf(salt).renew(own.map(({ id }) => id));
    }
  }

  #orderOf(salt: string): UseOrder {
    const known = this.#orderBySalt.get(salt);
    if (known !== undefined) return known;
    const order = new UseOrder();
    this.#orderBySalt.set(salt, order);
    return order;
  }
}

/** Ids in the order of their use; before them those that were there already. */
class UseOrder {
  readonly #seeded = new LruPolicy();
  readonly #used = new LruPolicy();

  get isEmpty(): boolean {
    return this.oldest().next().done === true;
  }

  /** Takes ids as used now, in prefix order. */
  renew(ids: readonly string[]): void {
    for (const id of ids) this.#seeded.removed(id);
    this.#used.admitted(ids);
  }

  seed(id: string): void {
    this.#seeded.admitted([id]);
  }

  removed(id: string): void {
    this.#seeded.removed(id);
    this.#used.removed(id);
  }

  *oldest(): Generator<string> {
    yield* this.#seeded.candidates();
    yield* this.#used.candidates();
  }
}
