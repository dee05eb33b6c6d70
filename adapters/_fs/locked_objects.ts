import type { ObjectKey } from "../../src/adapter/contract.ts";
import type { ObjectPaths } from "./object_paths.ts";

/**
 * Counts the locks of objects. Lookups use keys, but evictions use paths, which cost more than the
 * rest of a lookup. The paths are therefore computed when an eviction first asks, and kept as long
 * as any object is locked.
 */
export class LockedObjects {
  readonly #paths: ObjectPaths;
  readonly #locks = new Map<string, { readonly key: ObjectKey; count: number }>();
  /** Paths of all locked objects, once an eviction has asked. */
  #files: Set<string> | undefined;

  constructor(paths: ObjectPaths) {
    this.#paths = paths;
  }

  /** Adds a lock to an object. */
  lock(key: ObjectKey): void {
    const lock = this.#locks.get(key.id);
    if (lock !== undefined) {
      lock.count++;
      return;
    }
    this.#locks.set(key.id, { key, count: 1 });
    this.#files?.add(this.#paths.pathOf(key));
  }

  /** Releases one lock; does nothing if the object has none. */
  unlock(key: ObjectKey): void {
    const lock = this.#locks.get(key.id);
    if (lock === undefined || --lock.count > 0) return;
    this.#locks.delete(key.id);
    if (this.#locks.size === 0) this.#files = undefined;
    else this.#files?.delete(this.#paths.pathOf(key));
  }

  /** Whether an object is locked. */
  has({ id }: ObjectKey): boolean {
    return this.#locks.has(id);
  }

  /** Whether a path is the file of a locked object. */
  hasFile(path: string): boolean {
    if (this.#locks.size === 0) return false;
    this.#files ??= new Set(
      this.#locks.values().map(({ key }) => this.#paths.pathOf(key)),
    );
    return this.#files.has(path);
  }
}
