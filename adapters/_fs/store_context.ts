import type { AdapterError, Clock, ObjectKey } from "../../src/adapter/contract.ts";
import type { IoWorkers } from "../../src/base/io/io_workers.ts";
import type { Durability } from "../../src/base/io/publish_file.ts";
import type { CallPurpose } from "../_shared/os_calls.ts";
import type { Report } from "../_shared/report.ts";
import type { DirectFileSystem } from "./direct_files.ts";
import type { DiskBounds } from "./disk_space_options.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";

/** Options of a {@linkcode FileStore}. */
export interface FileStoreOptions {
  readonly files: FileSystem;
  /** Closes the files; stops waiting when `signal` aborts. */
  readonly closeFiles?: (signal: AbortSignal) => Promise<void>;
  readonly paths: ObjectPaths;
  /** Directory of the locks and the ledger. */
  readonly sharedPath: string;
  /** Directory of temporary files; `undefined` if they lie next to the objects. */
  readonly tmpPath: string | undefined;
  /** What is synced before an object counts as stored. */
  readonly durability: Durability;
  /** Whether to bypass the page cache. */
  readonly isDirect: boolean;
  /** Threads that move objects, once they are ready; the adapter ends them. */
  readonly threads?: IoWorkers | undefined;
  /** Creates the files for direct I/O. @default {DirectFiles} */
  readonly directFiles?: (files: FileSystem) => DirectFileSystem;
  /** Whether the members of a group share the directory. */
  readonly isGroupShared: boolean;
  /** Whether the directory may belong to another user. */
  readonly allowsForeignOwner: boolean;
  /** Max file operations at a time. */
  readonly ioConcurrency: number;
  /** Max bytes that they move at a time. */
  readonly maxBytesInFlight: number;
  /**
   * Size of the first read of an object, which triggers the system's read-ahead; 0 reads all at
   * once.
   */
  readonly readAheadBytes: number;
  /** Whether to count the directory at start. */
  readonly countsOnStart: boolean;
  /** Limits of the directory. */
  readonly bounds: DiskBounds;
  /** Whether objects have no trailer, so that other programs can read them. */
  readonly isUnsealed: boolean;
  readonly clock: Clock;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted?: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** What the parts of an open {@linkcode FileStore} share. */
export interface StoreContext extends FileStoreOptions {
  /** File operations for a purpose, within this adapter's share of Deno's threads. */
  readonly limited: (purpose: CallPurpose, signal?: AbortSignal) => FileSystem;
  /** File operations for background work. */
  readonly background: FileSystem;
  /** Mode of files that are not objects. */
  readonly fileMode: number;
  /** Aborts when the adapter closes. */
  readonly signal: AbortSignal;
  readonly report: Report;
}
