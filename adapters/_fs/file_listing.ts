import { basename, dirname } from "@std/path";
import {
  type AdapterUsage,
  type CallOptions,
  keyInTail,
  type ListedObject,
  type ListOptions,
  MAX_TAIL_BYTES,
  type ObjectKey,
} from "../../src/adapter/contract.ts";
import { isNoObject } from "../_shared/errno.ts";
import { type ObjectFile, walkObjects } from "./directory_walk.ts";
import type { StoreContext } from "./store_context.ts";

/** Lists and counts the objects of a directory, and finds the keys of files. */
export class FileListing {
  readonly #context: StoreContext;

  constructor(context: StoreContext) {
    this.#context = context;
  }

  /** Lists the objects whose keys their files tell. */
  async *list({ model, signal, onKeyless }: ListOptions): AsyncGenerator<ListedObject, void> {
    const files = this.#context.limited("housekeeping", signal);
    for await (const batch of walkObjects(files, this.#context.paths, signal)) {
      for (const file of batch) {
        const key = await this.#keyOf(file);
        if (signal.aborted) return;
        // An earlier version wrote nothing behind objects of LMCache's layout.
        if (onKeyless && key === null && file.object === "key-in-file") {
          if (await files.exists(file.path)) onKeyless();
        }
        if (key !== null && (model === undefined || key.model === model)) {
          const { size: byteLength, usedAt } = file;
          yield { key, byteLength, ...(usedAt === 0 ? {} : { usedAt }) };
        }
      }
    }
  }

  /** Counts files and their bytes by walking through the directory. */
  async count({ signal }: CallOptions): Promise<AdapterUsage> {
    let usedBytes = 0;
    let objectCount = 0;
    const files = this.#context.limited("housekeeping", signal);
    for await (const batch of walkObjects(files, this.#context.paths, signal)) {
      for (const { size } of batch) usedBytes += size;
      objectCount += batch.length;
    }
    signal.throwIfAborted();
    return { usedBytes, objectCount };
  }

  /** The key of a file that is about to be evicted, if it has one. */
  async keyAt(path: string, size: number): Promise<ObjectKey | null> {
    const object = this.#context.paths.objectNamed(dirname(path), basename(path));
    return object === null ? null : await this.#keyOf({ path, size, object });
  }

  async #keyOf(
    { path, size, object }: Pick<ObjectFile, "path" | "size" | "object">,
  ): Promise<ObjectKey | null> {
    if (object === "no-key") return null;
    if (object !== "key-in-file") return object.key;
    const { background, paths, report } = this.#context;
    const end = new Uint8Array(Math.min(size, MAX_TAIL_BYTES));
    try {
      using file = await background.open(path, size);
      if (await file.read(end, size - end.byteLength) < end.byteLength) return null;
    } catch (cause) {
      if (!isNoObject(cause)) report("list", cause);
      return null;
    }
    const key = keyInTail(end, size);
    return key !== null && paths.pathOf(key) === path ? key : null;
  }
}
