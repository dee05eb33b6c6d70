import type { ObjectKey } from "../../src/adapter/contract.ts";
import type { ScanCall } from "../_remote/remote_store.ts";
import type { Backend } from "./backend.ts";
import type { KnownObjects, ObjectFacts } from "./known_objects.ts";
import { type ConnectorObjectNames, partsBegunAt } from "./object_names.ts";
import type { ObjectValues } from "./object_values.ts";

/** Age after which unreferenced parts are those of an interrupted store, in milliseconds. */
const ABANDONED_MS = 3_600_000;

/** Options of an {@linkcode ObjectListing}. */
export interface ObjectListingOptions {
  readonly backend: Backend;
  readonly names: ConnectorObjectNames;
  readonly known: KnownObjects;
  readonly values: ObjectValues;
}

interface ListedName {
  readonly name: string;
  /** `undefined` if the name contains only a digest. */
  readonly key: ObjectKey | undefined;
}

/** All names that begin with the prefix. */
interface Names {
  readonly objects: readonly ListedName[];
  /** Object sizes found in the names of side values, by key digest. */
  readonly sizes: ReadonlyMap<string, readonly number[]>;
  /** Names of parts, by id. */
  readonly parts: ReadonlyMap<string, readonly string[]>;
}

/** Lists the objects of a connector, reading as few values as possible. */
export class ObjectListing {
  readonly #options: ObjectListingOptions;

  constructor(options: ObjectListingOptions) {
    this.#options = options;
  }

  /** Lists the objects. */
  async *list(call: ScanCall): AsyncGenerator<ObjectFacts, void> {
    yield* this.#facts(await this.#names(call.signal), call);
  }

  /**
   * Lists the objects; also removes leftovers of interrupted stores, and writes missing side
   * values.
   */
  async *listAndRepair(call: ScanCall): AsyncGenerator<ObjectFacts, void> {
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
      // A failure is retried at the next listing.
      await values.repairSizes(facts, found.sizes.get(digest) ?? [], signal).catch(() => {});
    }
    if (signal.aborted) return;
    const orphans = [...found.sizes].filter(([digest]) => !sized.has(digest))
      .flatMap(([digest, sizes]) => sizes.map((size) => names.ofSize(digest, size)));
    // An unreadable object may refer to parts.
    const isOld = (id: string): boolean => partsBegunAt(id) + ABANDONED_MS < Date.now();
    const abandoned = unread > 0
      ? []
      : [...found.parts].filter(([id]) => isOld(id) && !needed.has(id)).flatMap(([, list]) => list);
    await values.removeNames([...unread > 0 ? [] : orphans, ...abandoned], signal);
  }

  async #names(signal: AbortSignal): Promise<Names> {
    const { backend, names } = this.#options;
    const objects: ListedName[] = [];
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
    { model, onUnread, signal }: ScanCall,
  ): AsyncGenerator<ObjectFacts, void> {
    const { known } = this.#options;
    // The key is undefined where only the value contains it.
    const isWanted = (key: ObjectKey | undefined): boolean =>
      key === undefined || model === undefined || key.model === model;
    for (const object of objects) {
      if (signal.aborted) return;
      if (!isWanted(object.key)) continue;
      if (object.key !== undefined && known.isForeign(object.key)) continue;
      let facts: ObjectFacts | undefined;
      try {
        facts = await this.#factsOf(object, sizes, signal);
      } catch (cause) {
        if (signal.aborted) return;
        onUnread(cause);
        // The object exists, although its size is unknown.
        if (object.key !== undefined) facts = { key: object.key, byteLength: 0 };
      }
      if (facts !== undefined && isWanted(facts.key)) yield facts;
    }
  }

  /** The facts of an object, from names alone if possible. */
  async #factsOf(
    { name, key }: ListedName,
    allSizes: ReadonlyMap<string, readonly number[]>,
    signal: AbortSignal,
  ): Promise<ObjectFacts | undefined> {
    const { known, values, names } = this.#options;
    const digest = key === undefined ? names.digestIn(name) : key.digest.toHex();
    const sizes = allSizes.get(digest) ?? [];
    const before = key && known.get(key);
    if (before !== undefined && sizes.every((size) => size === before.byteLength)) return before;
    const [size] = sizes;
    // Two sizes come from two stores: only the value tells which was the last.
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
