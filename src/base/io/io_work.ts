import { existsSync as exists } from "node:fs";
import { crc32OfParts } from "../checksum.ts";
import { writeParts } from "../byte_parts.ts";
import { addChecksums } from "../seal.ts";
import { TaskStatus, type TaskStatusCode } from "./batch_state.ts";
import {
  type CopyTask,
  type EncodedBatch,
  type FindTask,
  type LoadTask,
  type StoreTask,
  TaskReader,
} from "./io_batch.ts";
import { publishFile } from "./publish_file.ts";
import { readObject } from "./read_object.ts";
import { runNow } from "./steps.ts";
import { directSyncFiles, type SyncFiles, syncFiles } from "./sync_files.ts";

/** What came of a task. */
export interface TaskResult {
  readonly status: TaskStatusCode;
  /** CRC-32 of the front of a loaded object, if it was wanted. */
  readonly checksum?: number;
  /** The failure of a file operation. */
  readonly error?: unknown;
}

/** Max bytes that may follow an object in its file. */
const MAX_TRAILING_BYTES = 65_536;

/** The tasks of a batch, to be done on this thread. */
export class BatchWork {
  readonly #batch: EncodedBatch;
  readonly #tasks: TaskReader;
  readonly #files: SyncFiles;

  constructor(batch: EncodedBatch) {
    this.#batch = batch;
    this.#tasks = new TaskReader(batch);
    this.#files = batch.isDirect ? directSyncFiles : syncFiles;
  }

  /** Does one task; never throws. */
  run(index: number): TaskResult {
    try {
      return this.#run(index);
    } catch (error) {
      return { status: TaskStatus.failed, error };
    }
  }

  #run(index: number): TaskResult {
    switch (this.#batch.kind) {
      case "find":
        return { status: find(this.#tasks.find(index)) };
      case "load":
        return this.#load(this.#tasks.load(index));
      case "copy":
        return copy(this.#tasks.copy(index));
      case "store":
        return this.#store(this.#tasks.store(index));
    }
  }

  #load(task: LoadTask): TaskResult {
    const { path, parts, checksumBytes } = task;
    const length = parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
    using file = this.#files.open(path, length + MAX_TRAILING_BYTES);
    const { readAheadBytes } = this.#batch;
    if (!runNow(readObject(file, { ...task, readAheadBytes }))) {
      return { status: TaskStatus.otherSize };
    }
    // The bytes are in the caches of this processor.
    return { status: TaskStatus.done, checksum: crc32OfParts(parts, checksumBytes) };
  }

  #store({ tmpPath, finalPath, parts, seal }: StoreTask): TaskResult {
    if (seal !== undefined) {
      const { payloadBytes, tail } = seal;
      addChecksums(tail, crc32OfParts(parts, payloadBytes));
      writeParts(parts, payloadBytes, tail);
    }
    const { mode, durability } = this.#batch;
    let failure: TaskStatusCode = TaskStatus.failed;
    const onPublished = (): void => void (failure = TaskStatus.unsynced);
    const files = this.#files;
    try {
      const options = { files, parts, tmpPath, finalPath, mode, durability, onPublished };
      runNow(publishFile(options));
      return { status: TaskStatus.done };
    } catch (error) {
      return { status: failure, error };
    }
  }
}

function find({ path, isStrict }: FindTask): TaskStatusCode {
  if (!isStrict) return exists(path) ? TaskStatus.done : TaskStatus.absent;
  return Deno.lstatSync(path).isFile ? TaskStatus.done : TaskStatus.absent;
}

function copy({ from, to }: CopyTask): TaskResult {
  to.set(from);
  return { status: TaskStatus.done };
}
