import type { Durability } from "./publish_file.ts";

/** Bytes in memory that worker threads share. */
export type SharedBytes = Uint8Array<SharedArrayBuffer>;

/** Looks a path up. */
export interface FindTask {
  readonly path: string;
  /** Whether only a regular file counts, and no link is followed; failures are then reported. */
  readonly isStrict: boolean;
}

/** Reads an object from the start of a file. */
export interface LoadTask {
  readonly path: string;
  /** Filled in order. */
  readonly parts: readonly SharedBytes[];
  /** The possible numbers of bytes that follow the object in its file. */
  readonly trailingBytes: readonly number[];
  /** Whether the object may be shorter than its parts. */
  readonly allowShorter: boolean;
  /** Bytes of the front whose CRC-32 is wanted; 0 for none. */
  readonly checksumBytes: number;
}

/** What completes the bytes of an object before they are written; see `seal.ts`. */
export interface SealTask {
  /** Bytes before the tail, whose CRC-32 the tail gets. */
  readonly payloadBytes: number;
  /** What follows them, without its checksums. */
  readonly tail: Uint8Array;
}

/** Publishes a file: creates a temporary one exclusively, writes, renames. */
export interface StoreTask {
  readonly tmpPath: string;
  readonly finalPath: string;
  readonly parts: readonly SharedBytes[];
  /** Left out if the parts are complete. */
  readonly seal?: SealTask | undefined;
}

/** Copies bytes between two places that do not overlap. */
export interface CopyTask {
  readonly from: SharedBytes;
  readonly to: SharedBytes;
}

/** How files are accessed. */
export interface BatchSettings {
  /** Whether to bypass the page cache. */
  readonly isDirect: boolean;
  /** Size of the first read of a file; 0 reads all at once. */
  readonly readAheadBytes: number;
  /** Mode of new files. */
  readonly mode: number;
  readonly durability: Durability;
}

/** Work for worker threads: tasks of one kind that they share. */
export type IoBatch =
  | { readonly kind: "find"; readonly tasks: readonly FindTask[] }
  | { readonly kind: "copy"; readonly tasks: readonly CopyTask[] }
  | Pick<BatchSettings, "isDirect" | "readAheadBytes"> & {
    readonly kind: "load";
    readonly tasks: readonly LoadTask[];
  }
  | Pick<BatchSettings, "isDirect" | "mode" | "durability"> & {
    readonly kind: "store";
    readonly tasks: readonly StoreTask[];
  };

const DEFAULTS: BatchSettings = { isDirect: false, readAheadBytes: 0, mode: 0, durability: "none" };

/** A kind of work. */
export type IoKind = IoBatch["kind"];

/** Kinds in the order in which a thread takes them: what an engine waits for comes first. */
export const IO_KINDS: readonly IoKind[] = ["find", "load", "copy", "store"];

/** The same for sending: numbers and one string, because objects take long to copy. */
export interface EncodedBatch extends BatchSettings {
  readonly kind: IoKind;
  /** All paths and the like, separated by NUL, which none of them contains. */
  readonly strings: string;
  /** Where the numbers of each task start, then the numbers. */
  readonly numbers: Float64Array<SharedArrayBuffer>;
  /** Memory that parts lie in. */
  readonly buffers: readonly SharedArrayBuffer[];
  /** Tails to be completed. */
  readonly tails: Uint8Array;
}

/** Encodes a batch for sending. */
export function encodeBatch(batch: IoBatch): EncodedBatch {
  const { kind, tasks, ...settings } = batch;
  const writer = new TaskWriter(tasks.length);
  switch (batch.kind) {
    case "find":
      for (const { path, isStrict } of batch.tasks) {
        writer.begin([path]);
        writer.add(Number(isStrict));
      }
      break;
    case "load":
      for (const { path, parts, trailingBytes, allowShorter, checksumBytes } of batch.tasks) {
        writer.begin([path]);
        writer.add(Number(allowShorter), checksumBytes, trailingBytes.length, ...trailingBytes);
        writer.addParts(parts);
      }
      break;
    case "copy":
      for (const { from, to } of batch.tasks) {
        writer.begin([]);
        writer.addParts([from, to]);
      }
      break;
    case "store":
      for (const { tmpPath, finalPath, parts, seal } of batch.tasks) {
        writer.begin([tmpPath, finalPath]);
        writer.add(seal?.payloadBytes ?? -1);
        writer.addTail(seal?.tail);
        writer.addParts(parts);
      }
      break;
  }
  return { ...DEFAULTS, ...settings, kind, ...writer.end() };
}

/** Reads the tasks of a batch that was sent. */
export class TaskReader {
  readonly #batch: EncodedBatch;
  readonly #strings: readonly string[];
  #at = 0;

  constructor(batch: EncodedBatch) {
    this.#batch = batch;
    this.#strings = batch.strings.split("\0");
  }

  /** Reads a {@linkcode FindTask}. */
  find(index: number): FindTask {
    const [path = ""] = this.#begin(index, 1);
    return { path, isStrict: this.#next() === 1 };
  }

  /** Reads a {@linkcode LoadTask}. */
  load(index: number): LoadTask {
    const [path = ""] = this.#begin(index, 1);
    const allowShorter = this.#next() === 1;
    const checksumBytes = this.#next();
    const trailingBytes = Array.from({ length: this.#next() }, () => this.#next());
    return { path, allowShorter, checksumBytes, trailingBytes, parts: this.#parts() };
  }

  /** Reads a {@linkcode CopyTask}. */
  copy(index: number): CopyTask {
    this.#begin(index, 0);
    const [from, to] = this.#parts();
    return { from: from as SharedBytes, to: to as SharedBytes };
  }

  /** Reads a {@linkcode StoreTask}. */
  store(index: number): StoreTask {
    const [tmpPath = "", finalPath = ""] = this.#begin(index, 2);
    const payloadBytes = this.#next();
    const from = this.#next();
    // A copy, because its checksums are added.
    const tail = this.#batch.tails.slice(from, from + this.#next());
    const seal = payloadBytes < 0 ? undefined : { payloadBytes, tail };
    return { tmpPath, finalPath, seal, parts: this.#parts() };
  }

  #begin(index: number, strings: number): readonly string[] {
    this.#at = this.#batch.numbers[index] ?? 0;
    return this.#strings.slice(index * strings, (index + 1) * strings);
  }

  #next(): number {
    return this.#batch.numbers[this.#at++] ?? 0;
  }

  #parts(): SharedBytes[] {
    return Array.from({ length: this.#next() }, () => {
      const buffer = this.#batch.buffers[this.#next()] as SharedArrayBuffer;
      const from = this.#next();
      return new Uint8Array(buffer, from, this.#next());
    });
  }
}

class TaskWriter {
  readonly #strings: string[] = [];
  readonly #starts: number[] = [];
  readonly #numbers: number[] = [];
  readonly #places = new Map<SharedArrayBuffer, number>();
  readonly #tails: Uint8Array[] = [];
  readonly #first: number;
  #tailBytes = 0;

  constructor(tasks: number) {
    this.#first = tasks;
  }

  begin(strings: readonly string[]): void {
    this.#strings.push(...strings);
    this.#starts.push(this.#first + this.#numbers.length);
  }

  add(...numbers: readonly number[]): void {
    this.#numbers.push(...numbers);
  }

  addTail(tail: Uint8Array | undefined): void {
    this.add(this.#tailBytes, tail?.byteLength ?? 0);
    if (tail === undefined) return;
    this.#tails.push(tail);
    this.#tailBytes += tail.byteLength;
  }

  addParts(parts: readonly SharedBytes[]): void {
    this.add(parts.length);
    for (const { buffer, byteOffset, byteLength } of parts) {
      let place = this.#places.get(buffer);
      if (place === undefined) this.#places.set(buffer, place = this.#places.size);
      this.add(place, byteOffset, byteLength);
    }
  }

  end(): Omit<EncodedBatch, "kind" | keyof BatchSettings> {
    const count = this.#first + this.#numbers.length;
    const numbers = new Float64Array(
      new SharedArrayBuffer(count * Float64Array.BYTES_PER_ELEMENT),
    );
    numbers.set(this.#starts);
    numbers.set(this.#numbers, this.#first);
    const tails = new Uint8Array(this.#tailBytes);
    let at = 0;
    for (const tail of this.#tails) {
      tails.set(tail, at);
      at += tail.byteLength;
    }
    return { strings: this.#strings.join("\0"), numbers, buffers: [...this.#places.keys()], tails };
  }
}
