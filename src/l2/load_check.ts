import type { AdapterObject } from "../adapter/contract.ts";
import { tailBytes, type TrailerFault } from "../adapter/object_trailer.ts";
import { frontOfParts } from "../base/byte_parts.ts";
import { Bitmap } from "../keys/bitmap.ts";

/**
 * Faults of an intact object that was stored under another key, layout or format, by another reader
 * or in a store that folds the case of names.
 */
const FOREIGN_FAULTS: ReadonlySet<TrailerFault> = new Set(["layout", "version", "key"]);

/**
 * Returns the fault of an object, or `null`. With a `LoadProof` for its payload, that is not read
 * again.
 */
export type Verify<T> = (object: T, proof?: unknown) => TrailerFault | null;

/** Verifies the objects of one load, each as soon as the adapter says that it is complete. */
export class LoadCheck<T extends AdapterObject> {
  readonly #objects: readonly T[];
  readonly #verify: Verify<T>;
  /** Fault of each object, `null` if it is intact; `undefined` until it has been verified. */
  readonly #verdicts: (TrailerFault | null | undefined)[];
  /** Objects that the adapter itself reported as faulty. */
  #reported: Set<number> | undefined;
  #isOver = false;

  constructor(objects: readonly T[], verify: Verify<T>) {
    this.#objects = objects;
    this.#verify = verify;
    this.#verdicts = new Array(objects.length);
  }

  /** To be called by the adapter for each loaded object; see `LoadOptions.onLoaded`. */
  readonly onLoaded = (index: number, fault?: TrailerFault, proof?: unknown): void => {
    const object = this.#objects[index];
    if (this.#isOver || object === undefined) return;
    this.#verdicts[index] = fault ?? this.#verify(object, proof);
    if (fault !== undefined) (this.#reported ??= new Set()).add(index);
  };

  /**
   * Ends the check. Returns which of the objects that the adapter has loaded are intact, and the
   * faults of the others by index.
   *
   * @param loaded Answer of the adapter; `undefined` if there is none.
   */
  finish(loaded: Bitmap | undefined): { done: Bitmap; faults: Map<number, TrailerFault> } {
    this.#isOver = true;
    const done = new Bitmap(this.#objects.length);
    const faults = new Map<number, TrailerFault>();
    if (loaded === undefined) return { done, faults };
    for (const [i, object] of this.#objects.entries()) {
      if (!loaded.test(i) && !this.#reported?.has(i)) continue;
      const known = this.#verdicts[i];
      const fault = known === undefined ? this.#verify(object) : known;
      if (fault === null) done.set(i);
      else faults.set(i, fault);
    }
    return { done, faults };
  }
}

/** Whether an object is of no use to any reader, and is removed. */
export function isBeyondUse(fault: TrailerFault | undefined): boolean {
  return fault !== undefined && !FOREIGN_FAULTS.has(fault);
}

/** The payloads of objects, for an adapter that stores no trailers. */
export function withoutTrailers(objects: readonly AdapterObject[]): readonly AdapterObject[] {
  return objects.map(({ key, parts, byteLength: sealed }) => {
    const byteLength = sealed - tailBytes(key);
    return { key, parts: frontOfParts(parts, byteLength), byteLength };
  });
}
