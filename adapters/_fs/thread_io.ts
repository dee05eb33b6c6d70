import { ObjectWithTrailer } from "../../src/adapter/object_to_seal.ts";
import { TaskStatus } from "../../src/base/io/batch_state.ts";
import type { IoBatch, SharedBytes } from "../../src/base/io/io_batch.ts";
import type { IoWorkers, RunOptions } from "../../src/base/io/io_workers.ts";
import { type BatchResults, ThreadEndedError } from "../../src/base/io/pending_batch.ts";
import { Limiter } from "../../src/base/limiter.ts";
import type {
  FileLookup,
  FileOutcome,
  FileRead,
  FileWrite,
  IoOptions,
  ObjectIo,
  OnOutcome,
} from "./object_io.ts";
import type { StoreContext } from "./store_context.ts";

/** Objects with more bytes in memory that is not shared are read without threads. */
const MAX_COPIED_READ_BYTES = 4096;
/** Max bytes that one batch of stores copies into shared memory, unless one object has more. */
const COPY_BYTES = 16 * 2 ** 20;
/** Such batches at a time. */
const COPIES = 2;

/** Options of a {@linkcode ThreadIo}. */
export interface ThreadIoOptions
  extends Pick<StoreContext, "durability" | "readAheadBytes" | "background"> {
  readonly threads: IoWorkers;
  /** Reads what threads cannot. */
  readonly host: ObjectIo;
}

/** Parts in shared memory, some of them in place of others. */
interface SharedParts {
  readonly parts: readonly SharedBytes[];
  /** The parts that were replaced, by index. */
  readonly copied: ReadonlyMap<number, Uint8Array>;
}

/** Objects through worker threads of the adapter: one message a batch and thread. */
export class ThreadIo implements ObjectIo {
  readonly takesBatches = true;
  readonly #options: ThreadIoOptions;
  readonly #copies = new Limiter({ operations: COPIES });
  readonly #blocks: SharedBytes[] = [];

  constructor(options: ThreadIoOptions) {
    this.#options = options;
  }

  /** See {@linkcode ObjectIo.find}. */
  async find(
    tasks: readonly FileLookup[],
    { signal, onOutcome }: Omit<IoOptions, "isDirect">,
  ): Promise<void> {
    const results = await this.#run({ kind: "find", tasks }, { signal });
    tell(results, tasks.length, onOutcome);
  }

  /** See {@linkcode ObjectIo.read}. */
  async read(reads: readonly FileRead[], options: IoOptions): Promise<void> {
    const { signal, isDirect, onOutcome } = options;
    const { host, readAheadBytes } = this.#options;
    const [shared, others] = divide(
      reads,
      ({ parts }) => bytesToCopy(parts) <= MAX_COPIED_READ_BYTES,
    );
    const rooms = shared.map((index) => {
      const { parts } = reads[index] as FileRead;
      return inSharedMemory(parts, new Uint8Array(new SharedArrayBuffer(bytesToCopy(parts))));
    });
    const tasks = shared.map((index, i) => ({
      ...reads[index] as FileRead,
      parts: rooms[i]?.parts ?? [],
    }));
    const read = async (): Promise<void> => {
      if (tasks.length === 0) return;
      const results = await this.#run(
        { kind: "load", tasks, isDirect, readAheadBytes },
        { signal },
      );
      for (const [i, { parts, copied }] of rooms.entries()) {
        if (results.statusOf(i) !== TaskStatus.done) continue;
        for (const [place, part] of copied) part.set(parts[place] as SharedBytes);
      }
      tell(results, tasks.length, (i, outcome) => onOutcome(shared[i] as number, outcome));
    };
    const rest = others.map((index) => reads[index] as FileRead);
    await Promise.all([
      read(),
      rest.length > 0 && host.read(rest, {
        ...options,
        onOutcome: (i, outcome) => onOutcome(others[i] as number, outcome),
      }),
    ]);
  }

  /** See {@linkcode ObjectIo.publish}. */
  async publish(
    writes: readonly FileWrite[],
    options: IoOptions & { readonly mode: number },
  ): Promise<void> {
    const { signal, onOutcome } = options;
    const [shared, others] = divide(writes, ({ object }) => {
      return bytesToCopy(ObjectWithTrailer.partsToSeal(object).parts) === 0;
    });
    const groups = copyGroups(others, (index) => writes[index]?.object.byteLength ?? 0);
    const publish = async (indices: readonly number[], room: SharedBytes): Promise<void> => {
      const chosen = indices.map((index) => writes[index] as FileWrite);
      await this.#publish(chosen, room, {
        ...options,
        onOutcome: (i, outcome) => onOutcome(indices[i] as number, outcome),
      });
    };
    await Promise.all([
      shared.length > 0 && publish(shared, new Uint8Array(new SharedArrayBuffer(0))),
      this.#copies.forEach(groups, () => 0, async (indices) => {
        const bytes = indices.reduce((sum, i) => sum + (writes[i]?.object.byteLength ?? 0), 0);
        const block = bytes <= COPY_BYTES ? this.#blocks.pop() ?? newBlock() : undefined;
        await publish(indices, block ?? new Uint8Array(new SharedArrayBuffer(bytes)));
        // Not if the call rejects: a thread may still read the block.
        if (block !== undefined) this.#blocks.push(block);
      }, signal),
    ]);
  }

  async #publish(
    writes: readonly FileWrite[],
    room: SharedBytes,
    { signal, isDirect, mode, onOutcome }: IoOptions & { readonly mode: number },
  ): Promise<void> {
    const { threads, durability, background } = this.#options;
    let used = 0;
    const tasks = writes.map(({ object, tmpPath, finalPath }) => {
      const { parts, seal } = ObjectWithTrailer.partsToSeal(object);
      const places = inSharedMemory(parts, room.subarray(used));
      used += bytesToCopy(parts);
      for (const [i, part] of places.copied) places.parts[i]?.set(part);
      return { tmpPath, finalPath, seal, parts: places.parts };
    });
    // One thread stays free for what an engine waits for, while a disk is slow to take bytes.
    const maxThreads = Math.max(1, threads.count - 1);
    const batch: IoBatch = { kind: "store", tasks, isDirect, mode, durability };
    const results = await this.#run(batch, { signal, maxThreads });
    for (const [i, { tmpPath }] of tasks.entries()) {
      // Nothing else removes the file of a thread that has ended.
      if (results.errorOf(i) instanceof ThreadEndedError) {
        background.remove(tmpPath).catch(() => {});
      }
    }
    tell(results, tasks.length, onOutcome);
  }

  #run(batch: IoBatch, options: RunOptions): Promise<BatchResults> {
    return this.#options.threads.run(batch, options);
  }
}

function tell(results: BatchResults, count: number, onOutcome: OnOutcome): void {
  for (let i = 0; i < count; i++) {
    const outcome = outcomeOf(results, i);
    if (outcome !== undefined) onOutcome(i, outcome);
  }
}

function outcomeOf(results: BatchResults, index: number): FileOutcome | undefined {
  switch (results.statusOf(index)) {
    case TaskStatus.done:
      return { status: "done", proof: results.proofOf(index) };
    case TaskStatus.absent:
      return { status: "absent" };
    case TaskStatus.otherSize:
      return { status: "other-size" };
    case TaskStatus.failed:
      return { status: "failed", error: results.errorOf(index) };
    case TaskStatus.unsynced:
      return { status: "failed", error: results.errorOf(index), isPublished: true };
  }
  return undefined;
}

/** Indices of the items for which `isFirst` holds, and of the others. */
function divide<Item>(
  items: readonly Item[],
  isFirst: (item: Item) => boolean,
): readonly [number[], number[]] {
  const divided: [number[], number[]] = [[], []];
  for (const [i, item] of items.entries()) divided[isFirst(item) ? 0 : 1].push(i);
  return divided;
}

/** Groups of at most {@linkcode COPY_BYTES}. */
function copyGroups(
  indices: readonly number[],
  bytesOf: (index: number) => number,
): readonly (readonly number[])[] {
  const groups: number[][] = [];
  let left = 0;
  for (const index of indices) {
    const bytes = bytesOf(index);
    if (bytes > left) {
      groups.push([]);
      left = COPY_BYTES;
    }
    groups.at(-1)?.push(index);
    left -= bytes;
  }
  return groups;
}

function isShared(part: Uint8Array): part is SharedBytes {
  return part.buffer instanceof SharedArrayBuffer;
}

function bytesToCopy(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => isShared(part) ? sum : sum + part.byteLength, 0);
}

/** Replaces parts that are not in shared memory by places in `room`. */
function inSharedMemory(parts: readonly Uint8Array[], room: SharedBytes): SharedParts {
  const copied = new Map<number, Uint8Array>();
  let used = 0;
  const shared = parts.map((part, i) => {
    if (isShared(part)) return part;
    copied.set(i, part);
    return room.subarray(used, used += part.byteLength);
  });
  return { parts: shared, copied };
}

function newBlock(): SharedBytes {
  return new Uint8Array(new SharedArrayBuffer(COPY_BYTES));
}
