/** What `recover_directory.ts` does. */
export interface RecoveryOptions {
  /** A directory full of objects. */
  readonly basePath: string;
  /** The number of an object in it. */
  readonly wanted: number;
  /** Bytes of its payload. */
  readonly payloadBytes: number;
}

/** What `recover_directory.ts` says. */
export interface RecoveryReport {
  /** Whether the object was loaded, and verified. */
  readonly isHit: boolean;
  /** Time from opening the directory until then, in milliseconds. */
  readonly firstHitMs: number;
  /** Whether the directory was still being counted then. */
  readonly isCountingAtHit: boolean;
  /** Time from opening the directory until it was counted, in milliseconds. */
  readonly countedMs: number;
  /** What the adapter says that objects take on disk. */
  readonly usedBytes: number;
  /** Temporary files that it removed. */
  readonly reclaimed: number;
  /** What the heap of the process grew by, in bytes. */
  readonly heapBytes: number;
  /** What the process grew by, in bytes. */
  readonly rssBytes: number;
  /** What the adapter reported as failures. */
  readonly failures: readonly string[];
}
