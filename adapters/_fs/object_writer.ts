import type { AdapterObject } from "../../src/adapter/contract.ts";
import { publishFile } from "../../src/base/io/publish_file.ts";
import { runLater } from "../../src/base/io/steps.ts";
import { isDirectRefused } from "../_shared/direct_access.ts";
import type { DirectSwitch } from "../_shared/direct_switch.ts";
import { diskBytesFor } from "../_shared/file_info.ts";
import type { DirectFileSystem } from "./direct_files.ts";
import type { DiskSpace } from "./disk_space.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectDirectories } from "./object_directories.ts";
import type { StoreContext } from "./store_context.ts";
import type { TemporaryFiles } from "./temporary_files.ts";
import type { UseTimes } from "./use_times.ts";

/** Parts of a store that writing an object needs. */
export interface ObjectWriterOptions extends StoreContext {
  readonly directories: ObjectDirectories;
  readonly direct: DirectSwitch<DirectFileSystem>;
  readonly temporary: TemporaryFiles;
  readonly space: DiskSpace;
  readonly useTimes: UseTimes;
}

/** The batch that an object is part of. */
export interface WriteBatch {
  /** Bytes on disk of the objects that are still to be written. */
  readonly batchBytes: number;
  readonly signal: AbortSignal;
  readonly files: FileSystem;
}

/** Writes objects: makes the directory, reserves space, publishes the file, accounts for it. */
export class ObjectWriter {
  readonly #options: ObjectWriterOptions;

  constructor(options: ObjectWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes an object; resolves to whether there was space. A directory that has gone is made again,
   * and direct I/O that is refused is replaced, once.
   */
  async write(object: AdapterObject, batch: WriteBatch): Promise<boolean> {
    const { directories, direct, limited } = this.#options;
    let { files } = batch;
    for (let attempt = 0;; attempt++) {
      try {
        return await this.#write(object, batch, files);
      } catch (error) {
        if (attempt > 0) throw error;
        if (error instanceof Deno.errors.NotFound) directories.forget();
        else if (direct.wasTried && isDirectRefused(error)) direct.refuse(error);
        else throw error;
        files = limited("store", batch.signal);
      }
    }
  }

  async #write(
    { key, parts, byteLength }: AdapterObject,
    { batchBytes, signal }: WriteBatch,
    files: FileSystem,
  ): Promise<boolean> {
    const { paths, tmpPath, durability, directories, temporary, space, useTimes } = this.#options;
    const directory = paths.directoryOf(key);
    const diskBytes = diskBytesFor(byteLength);
    if (!directories.isKnown(directory)) await directories.make(directory, files);
    if (!space.tryReserve(diskBytes)) {
      if (!(await space.reserve(diskBytes, batchBytes, signal))) return false;
    }
    let isPublished = false;
    try {
      const tmp = temporary.next(tmpPath ?? directory);
      await runLater(publishFile({
        files,
        parts,
        tmpPath: tmp,
        finalPath: `${directory}/${paths.nameOf(key)}`,
        mode: directories.objectMode,
        durability,
        onPublished: () => void (isPublished = true),
      }));
    } catch (error) {
      // A published file takes its space even if the store counts as failed.
      if (!isPublished) space.release(diskBytes);
      throw error;
    } finally {
      space.settled(diskBytes);
    }
    if (!useTimes.wasMissing(key)) space.noteReplaced(diskBytes);
    space.succeeded();
    return true;
  }
}
