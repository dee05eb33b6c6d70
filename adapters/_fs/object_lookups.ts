import { Bitmap, type LookupOptions, type ObjectKey } from "../../src/adapter/contract.ts";
import { findChainEnd } from "../_shared/chain_search.ts";
import { isNoObject } from "../_shared/errno.ts";
import type { RecentKeys } from "../_shared/recent_keys.ts";
import type { ObjectDirectories } from "./object_directories.ts";
import type { ObjectIo } from "./object_io.ts";
import type { StoreContext } from "./store_context.ts";

/** Probes a round, where asking for many together takes hardly longer than for one. */
const BATCH_WIDTH = 64;

/** Parts of a store that lookups need. */
export interface ObjectLookupsOptions extends Pick<StoreContext, "report" | "paths"> {
  readonly io: () => ObjectIo;
  readonly directories: ObjectDirectories;
  /** Keys that a chain search may claim although they are missing. */
  readonly suspects: RecentKeys;
}

/** Looks objects up; of a chain, only as many as it takes to find its end. */
export class ObjectLookups {
  readonly #options: ObjectLookupsOptions;

  constructor(options: ObjectLookupsOptions) {
    this.#options = options;
  }

  /** Finds objects. */
  async find(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const { suspects, io } = this.#options;
    if (signal.aborted) return new Bitmap(keys.length);
    const at = (places: readonly number[]): ObjectKey[] =>
      places.map((place) => keys[place] as ObjectKey);
    const found = prefix
      ? new Bitmap(
        keys.length,
        await findChainEnd(
          keys.length,
          (places) => this.#arePresent(at(places), signal),
          suspects.placesIn(keys),
          io().takesBatches ? BATCH_WIDTH : undefined,
        ),
      )
      : Bitmap.from(await this.#arePresent(keys, signal), Boolean);
    const [first] = keys;
    // An unreadable directory looks empty; one full lookup reports the error.
    if (first !== undefined && found.popcount() === 0 && !signal.aborted) {
      await this.#arePresent([first], signal, true);
    }
    return found;
  }

  async #arePresent(
    keys: readonly ObjectKey[],
    signal: AbortSignal,
    isStrict = false,
  ): Promise<readonly boolean[]> {
    const { io, directories, paths, suspects, report } = this.#options;
    const answers = new Array<boolean>(keys.length).fill(false);
    const places: number[] = [];
    const lookups = [];
    const isAlwaysStrict = isStrict || directories.hasLinks;
    for (const [i, key] of keys.entries()) {
      if (isAlwaysStrict || suspects.has(key)) {
        const path = directories.placeOf(key);
        if (path === undefined) continue;
        lookups.push({ path, isStrict: true });
      } else {
        lookups.push({ path: paths.pathOf(key), isStrict: false });
      }
      places.push(i);
    }
    if (lookups.length === 0) return answers;
    await io().find(lookups, {
      signal,
      onOutcome: (i, outcome) => {
        const place = places[i] as number;
        answers[place] = outcome.status === "done";
        if (outcome.status !== "failed" || isNoObject(outcome.error)) return;
        report("lookup", outcome.error, keys[place]);
      },
    });
    return answers;
  }
}
