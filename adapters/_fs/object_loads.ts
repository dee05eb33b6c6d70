import { type AdapterObject, Bitmap, type LoadOptions } from "../../src/adapter/contract.ts";
import { tailBytes } from "../../src/adapter/object_trailer.ts";
import type { Limiter } from "../../src/base/limiter.ts";
import { isDirectRefused } from "../_shared/direct_access.ts";
import type { DirectSwitch } from "../_shared/direct_switch.ts";
import { isNoObject } from "../_shared/errno.ts";
import type { RecentKeys } from "../_shared/recent_keys.ts";
import type { DirectFileSystem } from "./direct_files.ts";
import type { SizeMismatchOptions, TrailingBytesOf } from "./load_options.ts";
import type { ObjectDirectories } from "./object_directories.ts";
import type { FileOutcome, FileRead, ObjectIo } from "./object_io.ts";
import type { StoreContext } from "./store_context.ts";

/** Parts of a store that loads need. */
export interface ObjectLoadsOptions extends Pick<StoreContext, "report" | "signal" | "isUnsealed"> {
  readonly io: () => ObjectIo;
  readonly directories: ObjectDirectories;
  readonly direct: DirectSwitch<DirectFileSystem>;
  readonly limiter: Limiter;
  /** Keys that a chain search may claim although they are missing. */
  readonly suspects: RecentKeys;
}

/** Loads objects, and decides what the outcome of each means. */
export class ObjectLoads {
  readonly #options: ObjectLoadsOptions;

  constructor(options: ObjectLoadsOptions) {
    this.#options = options;
  }

  /** Loads each object into its parts; a file of another length is a miss. */
  async load(
    objects: readonly AdapterObject[],
    trailingBytesOf: TrailingBytesOf,
    options: LoadOptions & SizeMismatchOptions,
  ): Promise<Bitmap> {
    const { limiter, io: currentIo } = this.#options;
    const loaded = new Bitmap(objects.length);
    const io = currentIo();
    const all = [...objects.keys()];
    const groups = io.takesBatches ? [all] : all.map((index) => [index]);
    const bytesOf = (indices: readonly number[]): number =>
      indices.reduce((sum, index) => sum + (objects[index]?.byteLength ?? 0), 0);
    const load = (indices: readonly number[]) =>
      this.#load(indices, objects, io, { ...options, trailingBytesOf, loaded });
    await limiter.forEach(groups, bytesOf, load, options.signal);
    return loaded;
  }

  async #load(
    indices: readonly number[],
    objects: readonly AdapterObject[],
    io: ObjectIo,
    options: LoadOptions & SizeMismatchOptions & {
      readonly trailingBytesOf: TrailingBytesOf;
      readonly loaded: Bitmap;
    },
  ): Promise<void> {
    const { direct, directories, suspects, signal: closing, isUnsealed } = this.#options;
    const { signal, onLoaded, allowShorter = false, trailingBytesOf } = options;
    if (signal.aborted || closing.aborted) return;
    const places: number[] = [];
    const reads: FileRead[] = [];
    for (const index of indices) {
      const { key, parts, byteLength } = objects[index] as AdapterObject;
      const path = directories.placeOf(key);
      if (path === undefined) {
        suspects.add(key);
        continue;
      }
      const isChecked = onLoaded !== undefined && !isUnsealed && !allowShorter;
      const checksumBytes = isChecked ? Math.max(0, byteLength - tailBytes(key)) : 0;
      const trailingBytes = trailingBytesOf(byteLength);
      places.push(index);
      reads.push({ path, parts, byteLength, trailingBytes, allowShorter, checksumBytes });
    }
    const refused: number[] = [];
    let refusal: unknown;
    const isDirect = direct.isInUse;
    await io.read(reads, {
      signal,
      isDirect,
      onOutcome: (i, outcome) => {
        const isRefused = isDirect && outcome.status === "failed" && isDirectRefused(outcome.error);
        if (!isRefused) return this.#judge(places[i] as number, objects, outcome, options);
        refused.push(i);
        refusal = outcome.error;
      },
    });
    if (refused.length > 0) {
      // A directory also refuses direct I/O, which says nothing about files.
      const files: number[] = [];
      await io.find(refused.map((i) => ({ path: reads[i]?.path ?? "", isStrict: true })), {
        signal,
        onOutcome: (i, outcome) => {
          const place = refused[i] as number;
          if (outcome.status === "done") files.push(place);
          else {
            const judged = outcome.status === "absent" ? OTHER_SIZE : outcome;
            this.#judge(places[place] as number, objects, judged, options);
          }
        },
      });
      if (files.length === 0) return;
      direct.refuse(refusal);
      await io.read(files.map((i) => reads[i] as FileRead), {
        signal,
        isDirect: false,
        onOutcome: (i, outcome) =>
          this.#judge(places[files[i] as number] as number, objects, outcome, options),
      });
    }
  }

  /** The one place that decides what the outcome of a load means. */
  #judge(
    index: number,
    objects: readonly AdapterObject[],
    outcome: FileOutcome,
    { signal, onLoaded, onSizeMismatch, loaded }: LoadOptions & SizeMismatchOptions & {
      readonly loaded: Bitmap;
    },
  ): void {
    const { suspects, report } = this.#options;
    const { key } = objects[index] as AdapterObject;
    switch (outcome.status) {
      case "done":
        loaded.set(index);
        onLoaded?.(index, undefined, outcome.proof);
        break;
      case "absent":
      case "other-size":
        suspects.add(key);
        if (onSizeMismatch === undefined) onLoaded?.(index, "layout");
        else onSizeMismatch(index);
        break;
      case "failed":
        if (isNoObject(outcome.error)) suspects.add(key);
        else if (outcome.error !== signal.reason) report("load", outcome.error, key);
        break;
    }
  }
}

const OTHER_SIZE: FileOutcome = { status: "other-size" };
