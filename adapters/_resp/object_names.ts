import { decodeFileName, encodeFileName, type ObjectKey } from "../../src/l2/adapter.ts";

/**
 * What objects are called on the server: `<prefix>{<name>}` for the head, and
 * `<prefix>{<name>}<generation>:<number>` for chunks. The braces put all keys of an object into one
 * slot of a cluster.
 */
export class ObjectNames {
  /** A pattern for SCAN that matches heads, and no chunks. */
  readonly headPattern: string;
  readonly #prefix: string;

  /** Names that begin with `prefix`, which has no braces. */
  constructor(prefix: string) {
    this.#prefix = prefix;
    this.headPattern = `${prefix.replace(/[\\*?[\]^]/g, "\\$&")}{*}`;
  }

  /** The name of an object's head. */
  headOf(key: ObjectKey): string {
    return `${this.#prefix}{${encodeFileName(key)}}`;
  }

  /** What the names of all chunks of one generation begin with; the number follows. */
  stemOf(head: string, generation: string): string {
    return `${head}${generation}:`;
  }

  /** The name within a head's name; `undefined` if it is none. */
  nameIn(head: string): string | undefined {
    const isHead = head.startsWith(`${this.#prefix}{`) && head.endsWith("}");
    return isHead ? head.slice(this.#prefix.length + 1, -1) : undefined;
  }

  /** The key that a name spells, or that stands behind the head; `null` if neither is right. */
  keyOf(name: string, carried: ObjectKey | undefined): ObjectKey | null {
    if (carried === undefined) return decodeFileName(name);
    return encodeFileName(carried) === name ? carried : null;
  }
}
