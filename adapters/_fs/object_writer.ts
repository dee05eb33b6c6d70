import type { AdapterObject } from "../../src/adapter/contract.ts";
import { isDirectRefused } from "../_shared/direct_access.ts";
import type { DirectSwitch } from "../_shared/direct_switch.ts";
import { isFull } from "../_shared/errno.ts";
import { diskBytesFor } from "../_shared/file_info.ts";
import type { DirectFileSystem } from "./direct_files.ts";
import type { DiskSpace } from "./disk_space.ts";
import type { ObjectDirectories } from "./object_directories.ts";
import type { FileWrite, ObjectIo } from "./object_io.ts";
import type { StoreContext } from "./store_context.ts";
import type { TemporaryFiles } from "./temporary_files.ts";
import type { UseTimes } from "./use_times.ts";

/** Parts of a store that writing objects needs. */
export interface ObjectWriterOptions extends StoreContext {
  readonly directories: ObjectDirectories;
  readonly direct: DirectSwitch<DirectFileSystem>;
  readonly temporary: TemporaryFiles;
  readonly space: DiskSpace;
  readonly useTimes: UseTimes;
}

/** Objects of a store that are written together. */
export interface WriteGroup {
  readonly objects: readonly AdapterObject[];
  readonly signal: AbortSignal;
  /** Bytes on disk of the store's objects that are still to be written. */
  readonly batchBytes: () => number;
  /** Called with the index of each object that has been stored. */
  readonly onStored: (index: number) => void;
}

/** An object that is about to be published. */
interface ReadyObject {
  readonly index: number;
  readonly diskBytes: number;
  readonly write: FileWrite;
}

/** Writes objects: makes the directory, reserves space, publishes the file, accounts for it. */
export class ObjectWriter {
  readonly #options: ObjectWriterOptions;

  constructor(options: ObjectWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes objects. A directory that has gone is made again, and direct I/O that is refused is
   * replaced, once.
   */
  async write(group: WriteGroup, io: ObjectIo): Promise<void> {
    const again = await this.#write([...group.objects.keys()], group, io, false);
    if (again.length > 0) await this.#write(again, group, io, true);
  }

  /** Writes some objects of a group; returns those to be tried again. */
  async #write(
    indices: readonly number[],
    group: WriteGroup,
    io: ObjectIo,
    isLast: boolean,
  ): Promise<readonly number[]> {
    const { paths, tmpPath, directories, temporary, space, signal: closing } = this.#options;
    const { objects, signal } = group;
    const again: number[] = [];
    let ready: ReadyObject[] = [];
    const flush = async (): Promise<void> => {
      const chosen = ready;
      ready = [];
      if (chosen.length > 0) again.push(...await this.#publish(chosen, group, io, isLast));
    };
    try {
      for (const index of indices) {
        if (signal.aborted || closing.aborted) break;
        const object = objects[index] as AdapterObject;
        const { key, byteLength } = object;
        const directory = paths.directoryOf(key);
        const diskBytes = diskBytesFor(byteLength);
        try {
          if (!directories.isKnown(directory)) {
            await directories.make(directory, this.#options.limited("store", signal));
          }
          if (!space.tryReserve(diskBytes)) {
            // To make room, objects of this group may have to go.
            await flush();
            if (!(await space.reserve(diskBytes, group.batchBytes(), signal))) continue;
          }
        } catch (cause) {
          if (!isLast && cause instanceof Deno.errors.NotFound) {
            directories.forget();
            again.push(index);
          } else if (cause !== signal.reason) this.#failed(cause, object);
          continue;
        }
        const write = {
          object,
          tmpPath: temporary.next(tmpPath ?? directory),
          finalPath: `${directory}/${paths.nameOf(key)}`,
        };
        ready.push({ index, diskBytes, write });
      }
    } finally {
      await flush();
    }
    return again;
  }

  /** Publishes objects whose space is reserved; returns those to be tried again. */
  async #publish(
    ready: readonly ReadyObject[],
    { signal, onStored }: WriteGroup,
    io: ObjectIo,
    isLast: boolean,
  ): Promise<readonly number[]> {
    const { directories, direct, space, useTimes } = this.#options;
    const again: number[] = [];
    const open = new Set(ready.keys());
    const isDirect = direct.isInUse;
    let isDiskFull = false;
    const end = (place: number, isPublished: boolean): ReadyObject => {
      const object = ready[place] as ReadyObject;
      open.delete(place);
      // A published file takes its space even if the store counts as failed.
      if (!isPublished) space.release(object.diskBytes);
      space.settled(object.diskBytes);
      return object;
    };
    try {
      await io.publish(ready.map(({ write }) => write), {
        signal,
        isDirect,
        mode: directories.objectMode,
        onOutcome: (place, outcome) => {
          if (outcome.status !== "failed") {
            const { index, diskBytes, write: { object: { key } } } = end(place, true);
            if (!useTimes.wasMissing(key)) space.noteReplaced(diskBytes);
            space.succeeded();
            return onStored(index);
          }
          const { error, isPublished = false } = outcome;
          const { index, write: { object } } = end(place, isPublished);
          if (!isLast && error instanceof Deno.errors.NotFound) {
            directories.forget();
            again.push(index);
          } else if (!isLast && isDirect && isDirectRefused(error)) {
            direct.refuse(error);
            again.push(index);
          } else if (error !== signal.reason) {
            this.#failed(error, object, isDiskFull);
            isDiskFull ||= isFull(error);
          }
        },
      });
    } finally {
      for (const place of open) end(place, false);
    }
    return again;
  }

  /** Reports a failure; of a group, the first one that finds the disk full pauses stores. */
  #failed(cause: unknown, { key, byteLength }: AdapterObject, isKnownFull = false): void {
    const { space, report } = this.#options;
    if (!isKnownFull) space.failed(cause, diskBytesFor(byteLength));
    report("store", cause, key);
  }
}
