/** What `share_directory.ts` does. */
export interface ShareOptions {
  /** The directory. */
  readonly basePath: string;
  /** Its capacity, in GiB. */
  readonly capacityGb: number;
  /** Operations on objects. */
  readonly operations: number;
  /** Keys that everybody uses. */
  readonly keyCount: number;
  /** Where its random numbers start. */
  readonly seed: number;
  /** As a control: every writer uses the same temporary name. */
  readonly hasOneTemporaryName?: boolean;
}

/** What `share_directory.ts` says. */
export interface ShareReport {
  /** Objects that were operated on. */
  operations: number;
  /** Objects stored. */
  stores: number;
  /** Objects that were refused for want of room. */
  refused: number;
  /** Objects loaded. */
  loads: number;
  /** Objects that were not there. */
  misses: number;
  /** Loaded objects with other bytes than belong to their keys. */
  wrong: number;
  /** Objects deleted. */
  deletes: number;
  /** Objects that it evicted. */
  evicted: number;
  /** What the adapter reported as failures. */
  failures: string[];
}

/** Bytes of the payload of an object: a block, or several. */
export function payloadBytesOf(n: number): number {
  return 1024 + 4096 * (n % 8);
}
