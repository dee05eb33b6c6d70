import * as nodeFs from "node:fs";
import type { AlignedBuffer } from "./direct_access.ts";
import type { FileWorker } from "./file_worker.ts";

/** Opens a file with flags that `Deno.open()` does not support; resolves to its descriptor. */
export function openNumbered(path: string, flags: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  nodeFs.open(path, flags, (error, number) => error ? reject(error) : resolve(number));
  return promise;
}

/** Reads from a file descriptor on a separate thread; resolves to the bytes read, 0 at the end. */
export function readNumbered(file: number, into: Uint8Array, position: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  nodeFs.read(
    file,
    into,
    0,
    into.byteLength,
    position,
    (error, count) => error ? reject(error) : resolve(count),
  );
  return promise;
}

/** Opens, reads and closes files by descriptor. */
export interface NumberedFiles {
  open(path: string, flags: number): Promise<number>;
  /** Reads `length` bytes at most; resolves to the bytes read, 0 at the end. */
  read(file: number, into: AlignedBuffer, length: number, position: number): Promise<number>;
  close(file: number): void;
}

/** Reads on Deno's threads, and closes in place. */
const hostFiles: NumberedFiles = {
  open: openNumbered,
  read: (file, into, length, position) => readNumbered(file, into.subarray(0, length), position),
  close: (file) => nodeFs.closeSync(file),
};

/** Reads and closes in a worker, if there is one. */
export function numberedFiles(worker: FileWorker | undefined): NumberedFiles {
  return worker === undefined ? hostFiles : {
    open: (path, flags) => worker.ask({ op: "open", path, flags }),
    read: (file, { buffer }, length, position) =>
      worker.ask({ op: "read", file, buffer, from: 0, length, position }),
    close: (file) => worker.closeLater(file),
  };
}
