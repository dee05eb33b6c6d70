/** Options of `share_directory.ts`. */
export interface ShareOptions {
  /** The directory. */
  readonly basePath: string;
  /** Its capacity, in GiB. */
  readonly capacityGb: number;
  /** Number of operations on objects. */
  readonly operations: number;
  /** Number of keys, shared by all processes. */
  readonly keyCount: number;
  /** Random seed. */
  readonly seed: number;
  /** For the control: all writers use the same temporary name. */
  readonly hasOneTemporaryName?: boolean;
}

/** Output of `share_directory.ts`. */
export interface ShareReport {
  /** Objects operated on. */
  operations: number;
  /** Objects stored. */
  stores: number;
  /** Objects rejected for lack of space. */
  refused: number;
  /** Objects loaded. */
  loads: number;
  /** Missing objects. */
  misses: number;
  /** Loaded objects with wrong bytes. */
  wrong: number;
  /** Objects deleted. */
  deletes: number;
  /** Objects evicted. */
  evicted: number;
  /** Errors that the adapter reported. */
  failures: string[];
}

/** Payload size of an object in bytes: one block or several. */
export function payloadBytesOf(n: number): number {
  return 1024 + 4096 * (n % 8);
}
