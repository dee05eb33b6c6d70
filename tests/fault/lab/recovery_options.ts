/** Options of `recover_directory.ts`. */
export interface RecoveryOptions {
  /** A directory full of objects. */
  readonly basePath: string;
  /** The number of an object in it. */
  readonly wanted: number;
  /** Its payload size in bytes. */
  readonly payloadBytes: number;
}

/** Output of `recover_directory.ts`. */
export interface RecoveryReport {
  /** Whether the object was loaded and verified. */
  readonly isHit: boolean;
  /** Time from opening the directory to that load, in milliseconds. */
  readonly firstHitMs: number;
  /** Whether the directory was still being counted at that time. */
  readonly isCountingAtHit: boolean;
  /** Time from opening the directory to the end of the count, in milliseconds. */
  readonly countedMs: number;
  /** Disk usage of objects reported by the adapter. */
  readonly usedBytes: number;
  /** Temporary files that it removed. */
  readonly reclaimed: number;
  /** Growth of the JavaScript heap, in bytes. */
  readonly heapBytes: number;
  /** Growth of the process, in bytes. */
  readonly rssBytes: number;
  /** Errors that the adapter reported. */
  readonly failures: readonly string[];
}
