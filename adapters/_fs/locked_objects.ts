import type { ObjectKey } from "../../src/l2/adapter.ts";
import type { ObjectPaths } from "./object_paths.ts";

/**
 * Objects that stay until they are unlocked as often as they were locked. Lookups and loads name
 * them by their keys; an eviction knows files, whose paths cost more than the rest of a lookup: they
 * are spelled only when one asks, and as long as something is locked from then on.
 */
export class LockedObjects {
  readonly #paths: ObjectPaths;
  readonly #locks = new Map<string, { readonly key: ObjectKey; count: number }>();
  /** The paths of all locked objects, once an eviction has asked. */
  #files: Set<string> | undefined;

  /** Nothing is locked yet; files lie where `paths` says. */
  constructor(paths: ObjectPaths) {
    this.#paths = paths;
  }

  /** Locks an object once more. */
  lock(key: ObjectKey): void {
    const lock = this.#locks.get(key.id);
    if (lock !== undefined) {
      lock.count++;
      return;
    }
    this.#locks.set(key.id, { key, count: 1 });
    this.#files?.add(this.#paths.pathOf(key));
  }

  /** Takes one lock back; nothing happens to an object that is not locked. */
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

  /** Whether the file at a path is that of a locked object. */
  hasFile(path: string): boolean {
    if (this.#locks.size === 0) return false;
    this.#files ??= new Set(
      this.#locks.values().map(({ key }) => this.#paths.pathOf(key)),
    );
    return this.#files.has(path);
  }
}
