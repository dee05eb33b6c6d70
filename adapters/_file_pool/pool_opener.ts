import type { Limiter } from "../../src/base/limiter.ts";
import type { OsCalls } from "../_shared/os_calls.ts";
import type { PoolIndex } from "./index_file.ts";
import type { PoolDirectory } from "./pool_directory.ts";
import type { PoolGeometry } from "./pool_geometry.ts";
import { rebuildIndex } from "./rebuild_index.ts";
import { areComplete, layOutFiles, type SlotFiles } from "./slot_files.ts";

/** Origin of a pool's index. */
export type RecoverySource = "index" | "slots" | "new";

/** A pool whose files are laid out. */
export interface OpenedPool {
  readonly files: SlotFiles;
  readonly index: PoolIndex;
  readonly source: RecoverySource;
}

/** Options of a {@linkcode PoolOpener}. */
export interface PoolOpenerOptions {
  readonly directory: PoolDirectory;
  /** Opens the files of a layout. */
  readonly filesOf: (geometry: PoolGeometry) => SlotFiles;
  /** Limits how many slots are inspected at a time. */
  readonly limiter: Limiter;
  /** This adapter's share of Deno's threads. */
  readonly calls: OsCalls;
  /** Aborts when the cache closes. */
  readonly signal: AbortSignal;
  /** Called for each slot that cannot be read. */
  readonly onError: (cause: unknown) => void;
}

/** Opens the pool in a directory, or creates it. */
export class PoolOpener {
  readonly #options: PoolOpenerOptions;

  constructor(options: PoolOpenerOptions) {
    this.#options = options;
  }

  /** Content of a pool, without opening it. */
  async contentOf(geometry: PoolGeometry): Promise<PoolIndex> {
    const index = await this.#options.directory.readIndex(geometry);
    if (index !== undefined) return index;
    using files = this.#options.filesOf(geometry);
    return await this.#rebuild(files);
  }

  /** Opens an existing pool; completes its files if needed. */
  async open(geometry: PoolGeometry): Promise<OpenedPool> {
    const { directory, filesOf, signal } = this.#options;
    const isComplete = await areComplete(directory.path, geometry);
    if (!isComplete) await layOutFiles(directory.files, directory.path, geometry, signal);
    const index = isComplete ? await directory.readIndex(geometry) : undefined;
    // Remove it now, because the next change makes it outdated.
    await directory.removeIndex();
    const files = filesOf(geometry);
    if (index !== undefined) return { files, index, source: "index" };
    return { files, index: await this.#rebuild(files), source: "slots" };
  }

  /** Creates the files of a pool; keeps the objects in existing slots. */
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
    const { limiter, calls, onError } = this.#options;
    return rebuildIndex(files, { limiter, calls, onError });
  }
}
