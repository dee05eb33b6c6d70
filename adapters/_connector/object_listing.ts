import type { ObjectKey } from "../../src/l2/adapter.ts";
import type { Backend } from "./backend.ts";
import type { KnownObjects, ObjectFacts } from "./known_objects.ts";
import { type ObjectNames, partsBegunAt } from "./object_names.ts";
import type { ObjectValues } from "./object_values.ts";

/** Parts that no object needs are those of a store that was cut, if they are older than this. */
const ABANDONED_MS = 3_600_000;

/** How an {@linkcode ObjectListing} is set up. */
export interface ObjectListingOptions {
  /** The connector. */
  readonly backend: Backend;
  /** How objects are called. */
  readonly names: ObjectNames;
  /** What is known of them. */
  readonly known: KnownObjects;
  /** The objects themselves. */
  readonly values: ObjectValues;
}

/** How a listing is made. */
export interface ListingCall {
  /** Which objects are wanted, by their keys; without a key, where only the value tells it. */
  readonly isWanted?: (key: ObjectKey | undefined) => boolean;
  /** Told that an object cannot be read. */
  readonly onUnread: (cause: unknown) => void;
  /** Aborts when nobody wants more. */
  readonly signal: AbortSignal;
}

interface NamedObject {
  readonly name: string;
  /** Left out where only a digest stands in the name. */
  readonly key: ObjectKey | undefined;
}

/** All names below the prefix. */
interface Names {
  readonly objects: readonly NamedObject[];
  /** Bytes of objects as values beside them tell, by the digests of their keys. */
  readonly sizes: ReadonlyMap<string, readonly number[]>;
  /** Names of parts, by what they have in common. */
  readonly parts: ReadonlyMap<string, readonly string[]>;
}

/** Enumerates the objects in a connector; it reads no more than it has to. */
export class ObjectListing {
  readonly #options: ObjectListingOptions;

  /** Asks nothing yet. */
  constructor(options: ObjectListingOptions) {
    this.#options = options;
  }

  /** The objects that are there. */
  async *list(call: ListingCall): AsyncGenerator<ObjectFacts, void> {
    yield* this.#facts(await this.#names(call.signal), call);
  }

  /** The same; what stores that were cut have left is removed, and sizes that are missing written. */
  async *tend(call: ListingCall): AsyncGenerator<ObjectFacts, void> {
    const { signal } = call;
    const { values, names } = this.#options;
    const found = await this.#names(signal);
    const needed = new Set<string>();
    const sized = new Set<string>();
    let unread = 0;
    const onUnread = (cause: unknown): void => {
      unread++;
      call.onUnread(cause);
    };
    for await (const facts of this.#facts(found, { ...call, onUnread })) {
      if (facts.parts !== undefined) needed.add(facts.parts.id);
      yield facts;
      if (found.sizes.size === 0 && facts.parts !== undefined) continue;
      const digest = facts.key.digest.toHex();
      sized.add(digest);
      // What fails is done the next time.
      await values.tendSizes(facts, found.sizes.get(digest) ?? [], signal).catch(() => {});
    }
    if (signal.aborted) return;
    const orphans = [...found.sizes].filter(([digest]) => !sized.has(digest))
      .flatMap(([digest, sizes]) => sizes.map((size) => names.ofSize(digest, size)));
    // What could not be read may need parts.
    const isOld = (id: string): boolean => partsBegunAt(id) + ABANDONED_MS < Date.now();
    const abandoned = unread > 0
      ? []
      : [...found.parts].filter(([id]) => isOld(id) && !needed.has(id)).flatMap(([, list]) => list);
    await values.removeNames([...unread > 0 ? [] : orphans, ...abandoned], signal);
  }

  async #names(signal: AbortSignal): Promise<Names> {
    const { backend, names } = this.#options;
    const objects: NamedObject[] = [];
    const sizes = new Map<string, number[]>();
    const parts = new Map<string, string[]>();
    for await (const name of backend.list?.(names.prefix, signal) ?? []) {
      if (signal.aborted) break;
      const named = names.parse(name);
      if (named?.type === "object") objects.push({ name, key: named.key });
      else if (named?.type === "part") add(parts, named.id, name);
      else if (named?.type === "size") add(sizes, named.digest, named.byteLength);
    }
    return { objects, sizes, parts };
  }

  async *#facts(
    { objects, sizes }: Names,
    { isWanted = () => true, onUnread, signal }: ListingCall,
  ): AsyncGenerator<ObjectFacts, void> {
    const { known } = this.#options;
    for (const object of objects) {
      if (signal.aborted) return;
      if (!isWanted(object.key)) continue;
      if (object.key !== undefined && known.isStranger(object.key)) continue;
      let facts: ObjectFacts | undefined;
      try {
        facts = await this.#factsOf(object, sizes, signal);
      } catch (cause) {
        if (signal.aborted) return;
        onUnread(cause);
        // It is there, whatever it is.
        if (object.key !== undefined) facts = { key: object.key, byteLength: 0 };
      }
      if (facts !== undefined && isWanted(facts.key)) yield facts;
    }
  }

  /** What is known of an object, by its names where they are enough. */
  async #factsOf(
    { name, key }: NamedObject,
    allSizes: ReadonlyMap<string, readonly number[]>,
    signal: AbortSignal,
  ): Promise<ObjectFacts | undefined> {
    const { known, values, names } = this.#options;
    const digest = key === undefined ? names.digestIn(name) : key.digest.toHex();
    const sizes = allSizes.get(digest) ?? [];
    const before = key && known.get(key);
    if (before !== undefined && sizes.every((size) => size === before.byteLength)) return before;
    const [size] = sizes;
    // Two sizes are those of two stores: the value tells which came last.
    if (size !== undefined && sizes.length === 1 && before === undefined) {
      if (key === undefined) {
        const facts = await values.factsBeside(digest, size, signal);
        if (facts !== undefined) return facts;
      } else {
        const facts = { key, byteLength: size };
        known.remember(facts);
        return facts;
      }
    }
    return await values.factsUnder(name, key, signal);
  }
}

function add<Value>(lists: Map<string, Value[]>, id: string, value: Value): void {
  const list = lists.get(id);
  if (list === undefined) lists.set(id, [value]);
  else list.push(value);
}
