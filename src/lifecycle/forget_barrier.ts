import type { ObjectKey } from "../keys/object_key.ts";

/** Objects to forget. */
export interface ForgetTarget {
  /** Whether an object is one of them. */
  readonly matches: (key: ObjectKey) => boolean;
  /** The only keys that match, if known. */
  readonly keys?: readonly ObjectKey[];
  /** The only model that matches, if known. */
  readonly model?: string;
}

/** A part of the cache that stores objects in adapters. */
export interface ForgetWriter {
  /** Resolves when no object of `target` is being stored. */
  settle(target: ForgetTarget): Promise<void>;
}

/**
 * Separates a forget from the work that could undo it. Loads and copies ask {@linkcode blocks}
 * before they start. A forget waits in {@linkcode passed} for the stores and copies that started
 * earlier.
 */
export class ForgetBarrier {
  readonly #forgets = new Set<ForgetTarget>();
  /** Ids of expired objects that an adapter may still have. */
  readonly #expired = new Set<string>();
  readonly #writers = new Set<ForgetWriter>();
  readonly #copies = new Set<Promise<void>>();

  /** Number of forgets in progress. */
  get forgets(): number {
    return this.#forgets.size;
  }

  /**
   * Whether an object must not be loaded or copied: it is being forgotten, or it has expired and an
   * adapter may still have it.
   */
  blocks(key: ObjectKey): boolean {
    if (this.#expired.size > 0 && this.#expired.has(key.id)) return true;
    for (const { matches } of this.#forgets) if (matches(key)) return true;
    return false;
  }

  /** Blocks the objects of a forget until the result is disposed. */
  raise(target: ForgetTarget): Disposable {
    this.#forgets.add(target);
    return { [Symbol.dispose]: () => void this.#forgets.delete(target) };
  }

  /** Blocks an expired object until {@linkcode unblock}. */
  block({ id }: ObjectKey): void {
    this.#expired.add(id);
  }

  /** Reverses {@linkcode block}. */
  unblock({ id }: ObjectKey): void {
    this.#expired.delete(id);
  }

  /** Makes forgets wait for the stores of `writer`. */
  addWriter(writer: ForgetWriter): void {
    this.#writers.add(writer);
  }

  /** Makes forgets that begin from now on wait for a copy in flight. */
  track(copy: Promise<void>): Promise<void> {
    const done = (): void => void this.#copies.delete(ended);
    const ended = copy.then(done, done);
    this.#copies.add(ended);
    return copy;
  }

  /** Resolves when the stores and copies in flight that may write objects of `target` have ended. */
  async passed(target: ForgetTarget): Promise<void> {
    await Promise.all([
      ...this.#copies,
      ...this.#writers.values().map((writer) => writer.settle(target)),
    ]);
  }
}
