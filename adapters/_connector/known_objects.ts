import type { ObjectKey } from "../../src/l2/adapter.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import type { PartSet } from "./value_format.ts";

/** Objects that are remembered: about 10 MiB. */
const MAX_KNOWN = 65_536;

/** What is known of an object without its bytes. */
export interface ObjectFacts {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its bytes; those of the value, where that is no object. */
  readonly byteLength: number;
  /** Where they are, if not in its own value. */
  readonly parts?: PartSet;
}

/** What was stored, read or listed last: a value is not read again to learn its size. */
export class KnownObjects {
  readonly #facts = new Map<string, ObjectFacts>();
  readonly #strangers = new RecentKeys(MAX_KNOWN);

  /** The facts of an object, if it is remembered. */
  get({ id }: ObjectKey): ObjectFacts | undefined {
    return this.#facts.get(id);
  }

  /** Remembers an object, and forgets the one that was remembered longest ago if there are many. */
  remember(facts: ObjectFacts): void {
    const { id } = facts.key;
    this.#strangers.delete(facts.key);
    this.#facts.delete(id);
    this.#facts.set(id, facts);
    if (this.#facts.size <= MAX_KNOWN) return;
    for (const oldest of this.#facts.keys()) {
      this.#facts.delete(oldest);
      return;
    }
  }

  /** Forgets an object. */
  forget({ id }: ObjectKey): void {
    this.#facts.delete(id);
  }

  /** Remembers that the object of another adapter, with a longer prefix, lies under a key's name. */
  addStranger(key: ObjectKey): void {
    this.#facts.delete(key.id);
    this.#strangers.add(key);
  }

  /** Whether another adapter's object lies under a key's name. */
  isStranger(key: ObjectKey): boolean {
    return this.#strangers.has(key);
  }
}
