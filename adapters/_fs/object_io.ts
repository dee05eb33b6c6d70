import type { AdapterObject } from "../../src/adapter/contract.ts";
import type { Reading } from "../../src/base/io/read_object.ts";

/** A path to be looked up. */
export interface FileLookup {
  readonly path: string;
  /** Whether only a regular file counts, and no link is followed; failures are then reported. */
  readonly isStrict: boolean;
}

/** An object to be read from its file. */
export interface FileRead extends Omit<Reading, "readAheadBytes"> {
  readonly path: string;
  readonly byteLength: number;
  /** Bytes of the front whose checksum is wanted; 0 for none. */
  readonly checksumBytes: number;
}

/** An object to be published as a file. */
export interface FileWrite {
  readonly object: AdapterObject;
  readonly tmpPath: string;
  readonly finalPath: string;
}

/**
 * What came of a file: the operation succeeded, perhaps with a proof of the checksum; the file is no
 * file, or has another length; the operation failed, perhaps after the file had its name.
 */
export type FileOutcome =
  | { readonly status: "done"; readonly proof?: unknown }
  | { readonly status: "other-size" }
  | { readonly status: "absent" }
  | { readonly status: "failed"; readonly error: unknown; readonly isPublished?: boolean };

/** Called with the outcome of each file; not for those that were not begun when `signal` aborted. */
export type OnOutcome = (index: number, outcome: FileOutcome) => void;

/** How a batch is handled. */
export interface IoOptions {
  readonly signal: AbortSignal;
  /** Whether to bypass the page cache. */
  readonly isDirect: boolean;
  readonly onOutcome: OnOutcome;
}

/**
 * Moves batches of objects between files and memory. Resolves when nothing is in progress any more;
 * rejects only if no file can be accessed.
 */
export interface ObjectIo {
  /** Whether a batch is best handled as a whole, rather than as one call for each object. */
  readonly takesBatches: boolean;
  /** Looks paths up. */
  find(lookups: readonly FileLookup[], options: Omit<IoOptions, "isDirect">): Promise<void>;
  /** Reads objects. */
  read(reads: readonly FileRead[], options: IoOptions): Promise<void>;
  /** Publishes objects with a file mode. */
  publish(
    writes: readonly FileWrite[],
    options: IoOptions & { readonly mode: number },
  ): Promise<void>;
}
