import { Bitmap, type ObjectKey } from "../../src/l2/adapter.ts";
import { findChainEnd } from "../_shared/chain_search.ts";
import type { Failures } from "../_shared/failures.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import type { ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";

/** Keys of a chain that are asked for at a time: an answer takes long, a request costs little. */
const CHAIN_WIDTH = 32;
/** Keys that turned out to be missing and are remembered, so that no chain claims them again. */
const MOST_SUSPECTS = 10_000;

/** How an {@linkcode ObjectFinder} is set up. */
export interface ObjectFinderOptions {
  /** The bucket. */
  readonly client: S3Client;
  /** How objects are called. */
  readonly names: ObjectNames;
}

/** What a search came to. */
export interface FoundKeys {
  /** Which objects are there. */
  readonly found: Bitmap;
  /** Keys that were asked for. */
  readonly asked: number;
}

/** Asks which objects are there. */
export class ObjectFinder {
  readonly #options: ObjectFinderOptions;
  readonly #suspects = new RecentKeys(MOST_SUSPECTS);

  /** Asks nothing yet. */
  constructor(options: ObjectFinderOptions) {
    this.#options = options;
  }

  /** Tells that an object is not there, whatever a chain search made believe. */
  suspect(key: ObjectKey): void {
    this.#suspects.add(key);
  }

  /** Tells that an object is there. */
  trust(key: ObjectKey): void {
    this.#suspects.delete(key);
  }

  /**
   * Asks for all keys at a time; of a chain only for some, as many as it takes to find its end.
   * What cannot be asked counts as missing. Those that are not there are given to `onAbsent`.
   */
  async find(
    keys: readonly ObjectKey[],
    isChain: boolean,
    failures: Failures,
    signal: AbortSignal,
    onAbsent: (key: ObjectKey) => void,
  ): Promise<FoundKeys> {
    const { client } = this.#options;
    let asked = 0;
    const isPresent = async (key: ObjectKey): Promise<boolean> => {
      asked++;
      let isThere = false;
      await this.#ask([key], failures, signal, async (name) => {
        isThere = await client.has(name, signal);
        if (isThere) this.trust(key);
        else onAbsent(key);
      });
      return isThere;
    };
    if (!isChain) {
      const present = await Promise.all(keys.map(isPresent));
      return { found: Bitmap.from(present, (isThere) => isThere), asked };
    }
    const suspects = this.#suspects.placesIn(keys);
    const at = (place: number): Promise<boolean> => isPresent(keys[place] as ObjectKey);
    const end = await findChainEnd(keys.length, at, suspects, CHAIN_WIDTH);
    return { found: new Bitmap(keys.length, end), asked };
  }

  /** The bytes of those objects that are there, by the ids of their keys. */
  async sizesOf(
    keys: readonly ObjectKey[],
    failures: Failures,
    signal: AbortSignal,
    onAbsent: (key: ObjectKey) => void,
  ): Promise<Map<string, number>> {
    const { client } = this.#options;
    const sizes = new Map<string, number>();
    await this.#ask(keys, failures, signal, async (name, key) => {
      const size = await client.sizeOf(name, signal);
      if (size === undefined) onAbsent(key);
      else sizes.set(key.id, size);
    });
    return sizes;
  }

  /** Asks about all keys at a time; what cannot be asked is a failure. */
  async #ask(
    keys: readonly ObjectKey[],
    failures: Failures,
    signal: AbortSignal,
    ask: (name: string, key: ObjectKey) => Promise<void>,
  ): Promise<void> {
    await Promise.all(keys.map(async (key) => {
      try {
        await ask(this.#options.names.nameOf(key), key);
      } catch (cause) {
        if (!signal.aborted) failures.add(key, cause);
      }
    }));
  }
}
