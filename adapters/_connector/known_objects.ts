import { LruMap } from "../../src/base/lru_map.ts";
import type { ObjectKey } from "../../src/adapter/contract.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import type { PartSet } from "./value_format.ts";

/** Max objects to remember; they take about 10 MiB. */
const MAX_KNOWN = 65_536;

/** What is known about an object without reading its bytes. */
export interface ObjectFacts {
  readonly key: ObjectKey;
  /** Bytes of the object; of a foreign value, the bytes of that value. */
  readonly byteLength: number;
  /** The values with its bytes, if they are not in its own value. */
  readonly parts?: PartSet;
}

/** Cache of what was stored, read or listed, so that no value is read again to learn its size. */
export class KnownObjects {
  readonly #facts = new LruMap<ObjectFacts>(({ key }) => key.id, MAX_KNOWN);
  readonly #foreign = new RecentKeys(MAX_KNOWN);

  /** The facts of an object, if cached. */
  get({ id }: ObjectKey): ObjectFacts | undefined {
    return this.#facts.get(id);
  }

  /** Caches the facts of an object; drops the oldest ones above the limit. */
  remember(facts: ObjectFacts): void {
    this.#foreign.delete(facts.key);
    this.#facts.put(facts);
  }

  /** Drops the facts of an object. */
  forget({ id }: ObjectKey): void {
    this.#facts.delete(id);
  }

  /** Records that the name of a key holds an object of another adapter, with a longer prefix. */
  addForeign(key: ObjectKey): void {
    this.#facts.delete(key.id);
    this.#foreign.add(key);
  }

  /** Whether the name of a key holds an object of another adapter. */
  isForeign(key: ObjectKey): boolean {
    return this.#foreign.has(key);
  }
}
