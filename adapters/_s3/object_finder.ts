import { Bitmap, type ObjectKey } from "../../src/adapter/contract.ts";
import { findChainEnd } from "../_shared/chain_search.ts";
import type { Failures } from "../_shared/failures.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import type { S3ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";

/** Probes per round of a chain search: requests are cheap, but round trips are slow. */
const CHAIN_WIDTH = 32;
/** Max keys remembered as missing, so that a chain search does not claim them again. */
const MAX_SUSPECTS = 10_000;

/** Options of an {@linkcode ObjectFinder}. */
export interface ObjectFinderOptions {
  readonly client: S3Client;
  readonly names: S3ObjectNames;
}

/** Result of a search. */
export interface FoundKeys {
  /** The objects that exist. */
  readonly found: Bitmap;
  /** Number of keys looked up. */
  readonly asked: number;
}

/** Looks up which objects exist. */
export class ObjectFinder {
  readonly #options: ObjectFinderOptions;
  readonly #suspects = new RecentKeys(MAX_SUSPECTS);

  constructor(options: ObjectFinderOptions) {
    this.#options = options;
  }

  /** Records that an object is missing, even if a chain search claimed it. */
  suspect(key: ObjectKey): void {
    this.#suspects.add(key);
  }

  /** Records that an object exists. */
  trust(key: ObjectKey): void {
    this.#suspects.delete(key);
  }

  /**
   * Looks up all keys at once; of a chain, only as many as it takes to find its end. A key whose
   * lookup fails counts as missing. Calls `onAbsent` for missing keys.
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
      let exists = false;
      await this.#ask([key], failures, signal, async (name) => {
        exists = await client.has(name, signal);
        if (exists) this.trust(key);
        else onAbsent(key);
      });
      return exists;
    };
    if (!isChain) {
      const present = await Promise.all(keys.map(isPresent));
      return { found: Bitmap.from(present, (exists) => exists), asked };
    }
    const suspects = this.#suspects.placesIn(keys);
    const at = (place: number): Promise<boolean> => isPresent(keys[place] as ObjectKey);
    const end = await findChainEnd(keys.length, at, suspects, CHAIN_WIDTH);
    return { found: new Bitmap(keys.length, end), asked };
  }

  /** Bytes of the objects that exist, by key id. */
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

  /** Runs `ask` for all keys at once and collects the failures. */
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
