import { Bitmap, type ObjectKey } from "../../src/adapter/contract.ts";
import type { FoundKeys, LookupCall, RemoveCall } from "../_remote/remote_store.ts";
import { findChainEnd } from "../_shared/chain_search.ts";
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

  /** Looks up all keys at once; of a chain, only as many as it takes to find its end. */
  async find({ keys, isChain, signal, absent, failed }: LookupCall): Promise<FoundKeys> {
    const { client, names } = this.#options;
    let asked = 0;
    const isPresent = async (key: ObjectKey): Promise<boolean> => {
      asked++;
      try {
        const exists = await client.has(names.nameOf(key), signal);
        if (exists) this.trust(key);
        else absent(key);
        return exists;
      } catch (cause) {
        failed(key, cause);
        return false;
      }
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

  /** Bytes of each object, or why there are none. */
  async sizesOf({ keys, signal, failed }: RemoveCall): Promise<(number | "absent" | "failed")[]> {
    const { client, names } = this.#options;
    return await Promise.all(keys.map(async (key) => {
      try {
        return await client.sizeOf(names.nameOf(key), signal) ?? "absent";
      } catch (cause) {
        failed(key, cause);
        return "failed";
      }
    }));
  }
}
