import type { Clock } from "../../src/base/clock.ts";
import type { ModelUsage } from "./directory_count.ts";
import type { HeadroomBounds } from "./disk_headroom.ts";
import type { EvictorOptions } from "./evictor.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";
import type { UsageLedger } from "./usage_ledger.ts";

/** Limits of a directory. */
export interface DiskBounds extends HeadroomBounds {
  /** Max bytes of objects on disk. @default {Infinity} */
  readonly capacityBytes: number;
  /** Shares of the capacity: eviction starts above `high` and stops at `low`. */
  readonly watermark?: { readonly high: number; readonly low: number };
}

/** Options of the space of a directory. */
export interface DiskSpaceOptions extends DiskBounds {
  readonly files: FileSystem;
  readonly paths: ObjectPaths;
  /** Ledger of the space, shared by all processes. */
  readonly ledger: UsageLedger;
  /** Lock file of the process that evicts. */
  readonly evictionLock: { readonly path: string; readonly mode: number };
  /** Identifies this writer in the ledger. */
  readonly tag: string;
  /** Tags of writers that may be alive. */
  readonly writers: () => Promise<readonly string[]>;
  /** Whether the writer with a tag is alive; `undefined` if unknown. */
  readonly isAlive: (tag: string) => Promise<boolean | undefined>;
  /** Bytes on disk of temporary files left by dead writers. */
  readonly abandonedBytes: (dead: ReadonlySet<string>, signal: AbortSignal) => Promise<number>;
  readonly clock: Clock;
  /** Whether a file must not be evicted. */
  readonly isLocked: (path: string) => boolean;
  /** Writes pending times of use, so that an eviction sees them. */
  readonly flushUseTimes: () => Promise<void>;
  /** Aborts when the adapter closes. */
  readonly signal: AbortSignal;
  /** Called with failures in the background. */
  readonly onError: (cause: unknown) => void;
  /** Callbacks for evicted objects, if needed. */
  readonly evicted?: NonNullable<EvictorOptions["evicted"]>;
}

/** Status of the space of a directory. */
export interface DiskSpaceStatus {
  /** Bytes used by all processes, as last read from the ledger; `undefined` before that. */
  readonly usedBytes: number | undefined;
  /** Current max bytes of objects on disk; `undefined` if unlimited. */
  readonly capacityBytes: number | undefined;
  /** Whether all processes of the directory share one ledger. */
  readonly isShared: boolean;
  /** Whether the directory is being counted. */
  readonly isCounting: boolean;
  /** Number of evicted objects. */
  readonly evictedObjects: number;
  /** Bytes on disk that evictions freed. */
  readonly evictedBytes: number;
  /** Number of objects refused because there was no space. */
  readonly refusedObjects: number;
  /** Why stores are paused now. */
  readonly pausedBy: string | undefined;
  /** Usage by model at the last count, least recently used first. */
  readonly models: readonly ModelUsage[];
}
