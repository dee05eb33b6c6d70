import { LruMap } from "../base/lru_map.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import { SaltUsage } from "../l1/salt_usage.ts";
import type { StoredObject } from "../l2/guard_listener.ts";

/** An object in an adapter. */
export interface TrackedObject {
  readonly key: ObjectKey;
  readonly bytes: number;
}

/** Maximum number of remembered objects that were used before they were listed. */
const MAX_UNLISTED = 65_536;

/** Index of the objects in an adapter, least recently used first. */
export class EvictionIndex {
  readonly #objects = new Map<string, TrackedObject>();
  readonly #order = new EvictionOrder();
  readonly #orderBySalt = new Map<string, EvictionOrder>();
  readonly #usage = new SaltUsage();
  /** Objects that were used before they were listed. */
  readonly #unlisted = new Map<string, ObjectKey>();
  #isSeeding: boolean;
  #bytes = 0;

  constructor(isSeeding: boolean) {
    this.#isSeeding = isSeeding;
  }

  /** Whether the adapter may hold objects that are not in the index yet. */
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

  /** Objects of one salt or of all, in eviction order. */
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
      // Its size is unknown until it is listed.
      if (!this.#isSeeding || this.#unlisted.size >= MAX_UNLISTED) return false;
      this.#unlisted.set(key.id, key);
      return true;
    };
    this.#renew(keys.filter(isTracked));
  }

  /** Adds a listed object, as older than every object used since the index was created. */
  seed(object: TrackedObject): void {
    const { key: { id, cacheSalt } } = object;
    if (this.#objects.has(id)) return;
    if (!this.#unlisted.has(id)) {
      this.#order.seed(id);
      this.#orderOf(cacheSalt).seed(id);
    }
    this.#put(object);
  }

  /**
   * Drops the `count` least recently used objects.
   *
   * @returns The number of dropped objects.
   */
  dropOldest(count: number): number {
    let dropped = 0;
    if (!(count > 0)) return dropped;
    for (const { key } of this.oldest()) {
      if (dropped >= count) break;
      this.removed(key);
      dropped++;
    }
    return dropped;
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

  #orderOf(salt: string): EvictionOrder {
    const known = this.#orderBySalt.get(salt);
    if (known !== undefined) return known;
    const order = new EvictionOrder();
    this.#orderBySalt.set(salt, order);
    return order;
  }
}

/** Ids in order of use, preceded by ids that were listed but not used. */
class EvictionOrder {
  readonly #seeded = new LruMap<string>((id) => id);
  readonly #used = new LruMap<string>((id) => id);

  get isEmpty(): boolean {
    return this.#seeded.size === 0 && this.#used.size === 0;
  }

  /** Marks ids, given in prefix order, as used now. */
  renew(ids: readonly string[]): void {
    for (let i = ids.length - 1; i >= 0; i--) {
      const id = ids[i] as string;
      this.#seeded.delete(id);
      if (!this.#used.renew(id)) this.#used.put(id);
    }
  }

  seed(id: string): void {
    if (!this.#seeded.renew(id)) this.#seeded.put(id);
  }

  removed(id: string): void {
    this.#seeded.delete(id);
    this.#used.delete(id);
  }

  *oldest(): Generator<string> {
    yield* this.#seeded;
    yield* this.#used;
  }
}
