import type { ObjectKey } from "../keys/object_key.ts";
import { SaltUsage } from "../l1/salt_usage.ts";
import type { StoredObject } from "../l2/guard_listener.ts";
import type { EvictionOrder, OrderPolicy } from "../policies/eviction_order.ts";
import { Place } from "../policies/place.ts";
import { VictimQueue, victims } from "../policies/victim_queue.ts";

/** An object in an adapter. */
export interface TrackedObject {
  readonly key: ObjectKey;
  readonly bytes: number;
}

/** Maximum number of remembered objects that were used before they were listed. */
const MAX_UNLISTED = 65_536;

/** Place of a key in the index. */
class KeyPlace extends Place {
  readonly key: ObjectKey;
  readonly share: SaltPlaces;
  /** The object; unknown until it is listed, if it was used before that. */
  object: TrackedObject | undefined;

  constructor(key: ObjectKey, share: SaltPlaces) {
    super();
    this.key = key;
    this.share = share;
  }
}

/** Places of one salt. */
interface SaltPlaces {
  readonly queue: VictimQueue<KeyPlace>;
  places: number;
}

/** Bits of the queue of all places, and of that of one salt. */
const [ALL, OF_SALT] = [1, 4];

/** Index of the objects in an adapter, in the order in which they should be evicted. */
export class EvictionIndex {
  readonly #order: EvictionOrder;
  readonly #places = new Map<string, KeyPlace>();
  readonly #queue = queueOf(ALL);
  readonly #shares = new Map<string, SaltPlaces>();
  readonly #usage = new SaltUsage();
  /** Places of objects that were used before they were listed. */
  readonly #unlisted = new Set<KeyPlace>();
  #isSeeding: boolean;
  #bytes = 0;

  constructor(isSeeding: boolean, policy: OrderPolicy) {
    this.#isSeeding = isSeeding;
    this.#order = policy.start();
  }

  /** Whether the adapter may hold objects that are not in the index yet. */
  get isSeeding(): boolean {
    return this.#isSeeding;
  }

  get size(): number {
    return this.#places.size - this.#unlisted.size;
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
    return this.#places.get(id)?.object;
  }

  /** Objects of one salt or of all, in eviction order. */
  *oldest(salt?: string): Generator<TrackedObject> {
    const queue = salt === undefined ? this.#queue : this.#shares.get(salt)?.queue;
    if (queue === undefined) return;
    for (const { object } of victims(this.#order, [queue], (place) => this.#queued(place))) {
      if (object !== undefined) yield object;
    }
  }

  stored(objects: readonly StoredObject[]): void {
    for (const { key, byteLength } of objects) {
      this.#put(this.#places.get(key.id) ?? this.#enter(key), { key, bytes: byteLength });
    }
    this.#record(objects.map(({ key }) => key), false);
  }

  used(keys: readonly ObjectKey[]): void {
    for (const key of keys) {
      // Its size is unknown until it is listed.
      const isNews = this.#isSeeding && this.#unlisted.size < MAX_UNLISTED &&
        !this.#places.has(key.id);
      if (!isNews) continue;
      this.#unlisted.add(this.#enter(key));
    }
    this.#record(keys, true);
  }

  /** Moves objects that cannot be evicted now behind the others. */
  postpone(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) {
      const place = this.#places.get(id);
      if (place !== undefined) this.#order.postpone(place);
    }
  }

  /** Adds a listed object, as older than every object used since the index was created. */
  seed(object: TrackedObject): void {
    const { key } = object;
    const known = this.#places.get(key.id);
    if (known?.object === undefined) this.#put(known ?? this.#enter(key, true), object);
  }

  /**
   * Drops the `count` objects that would be evicted first.
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
    for (const { key } of this.#unlisted) this.removed(key);
  }

  /** @param isEvicted Whether it was evicted as the next one in the order. */
  removed({ id, cacheSalt }: ObjectKey, isEvicted = false): void {
    const place = this.#places.get(id);
    if (place === undefined) return;
    this.#places.delete(id);
    this.#unlisted.delete(place);
    this.#count(place, undefined);
    this.#order.leave(place, id, isEvicted);
    if (--place.share.places === 0) this.#shares.delete(cacheSalt);
  }

  #enter(key: ObjectKey, isSeed = false): KeyPlace {
    const share = this.#shares.get(key.cacheSalt) ?? { queue: queueOf(OF_SALT), places: 0 };
    this.#shares.set(key.cacheSalt, share);
    share.places++;
    const place = new KeyPlace(key, share);
    this.#places.set(key.id, place);
    if (isSeed) this.#order.seed(place, key.id);
    else this.#order.enter(place, key.id);
    this.#queued(place);
    return place;
  }

  #put(place: KeyPlace, object: TrackedObject): void {
    this.#unlisted.delete(place);
    this.#count(place, object);
  }

  /** Records uses or stores of objects, given in prefix order. */
  #record(keys: readonly ObjectKey[], isUse: boolean): void {
    let next: KeyPlace | undefined;
    for (let i = keys.length - 1; i >= 0; i--) {
      const place = this.#places.get((keys[i] as ObjectKey).id);
      if (place === undefined) continue;
      this.#order.use(place, next, isUse);
      this.#queued(place);
      next = place;
    }
  }

  #queued(place: KeyPlace): void {
    this.#queue.add(place);
    place.share.queue.add(place);
  }

  /** Replaces the object of a place, and counts its bytes. */
  #count(place: KeyPlace, object: TrackedObject | undefined): void {
    const more = (object?.bytes ?? 0) - (place.object?.bytes ?? 0);
    place.object = object;
    this.#bytes += more;
    this.#usage.add(place.key.cacheSalt, more);
  }
}

function queueOf(bit: number): VictimQueue<KeyPlace> {
  return new VictimQueue(bit, ({ isPlaced }) => isPlaced);
}
