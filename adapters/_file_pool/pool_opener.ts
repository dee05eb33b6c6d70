import type { IoSlots } from "../_shared/io_slots.ts";
import type { OsCalls } from "../_shared/os_calls.ts";
import type { PoolIndex } from "./index_file.ts";
import type { PoolDirectory } from "./pool_directory.ts";
import type { PoolGeometry } from "./pool_geometry.ts";
import { rebuildIndex } from "./rebuild_index.ts";
import { areComplete, layOutFiles, type SlotFiles } from "./slot_files.ts";

/** Where the index of a pool came from. */
export type RecoverySource = "index" | "slots" | "new";

/** A pool whose files are laid out. */
export interface OpenedPool {
  /** Its files. */
  readonly files: SlotFiles;
  /** The objects in them. */
  readonly index: PoolIndex;
  /** Where the index came from. */
  readonly source: RecoverySource;
}

/** How a {@linkcode PoolOpener} is set up. */
export interface PoolOpenerOptions {
  /** Where the pool is. */
  readonly directory: PoolDirectory;
  /** Opens the files of a pool that is laid out. */
  readonly filesOf: (geometry: PoolGeometry) => SlotFiles;
  /** Bounds how many slots are looked at at a time. */
  readonly slots: IoSlots;
  /** The threads that may be used for that. */
  readonly calls: OsCalls;
  /** Aborts when the cache closes. */
  readonly signal: AbortSignal;
  /** Told about slots that cannot be read. */
  readonly onError: (cause: unknown) => void;
}

/** Opens the pool in a directory, or makes one there. */
export class PoolOpener {
  readonly #options: PoolOpenerOptions;

  /** Opens pools in one directory. */
  constructor(options: PoolOpenerOptions) {
    this.#options = options;
  }

  /** What is in a pool that is not to be opened. */
  async contentOf(geometry: PoolGeometry): Promise<PoolIndex> {
    const index = await this.#options.directory.readIndex(geometry);
    if (index !== undefined) return index;
    using files = this.#options.filesOf(geometry);
    return await this.#rebuild(files);
  }

  /** Opens the pool that is there; files that are not whole are completed. */
  async open(geometry: PoolGeometry): Promise<OpenedPool> {
    const { directory, filesOf, signal } = this.#options;
    const isComplete = await areComplete(directory.path, geometry);
    if (!isComplete) await layOutFiles(directory.files, directory.path, geometry, signal);
    const index = isComplete ? await directory.readIndex(geometry) : undefined;
    // From here on it may be out of date at any moment.
    await directory.removeIndex();
    const files = filesOf(geometry);
    if (index !== undefined) return { files, index, source: "index" };
    return { files, index: await this.#rebuild(files), source: "slots" };
  }

  /** Makes the files of a pool, and takes over what is in slots that are there already. */
  async layOut(geometry: PoolGeometry): Promise<OpenedPool> {
    const { directory, filesOf, signal } = this.#options;
    await directory.removeIndex();
    await directory.removeLeftovers(geometry);
    const hadFiles = await layOutFiles(directory.files, directory.path, geometry, signal);
    await directory.writeGeometry(geometry);
    const files = filesOf(geometry);
    if (hadFiles) return { files, index: await this.#rebuild(files), source: "slots" };
    return { files, index: { objects: [], nextSequence: 1 }, source: "new" };
  }

  #rebuild(files: SlotFiles): Promise<PoolIndex> {
    const { slots, calls, onError } = this.#options;
    return rebuildIndex(files, { slots, calls, onError });
  }
}
