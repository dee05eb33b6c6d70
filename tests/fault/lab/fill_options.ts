/** What `fill_directory.ts` does. */
export interface FillOptions {
  /** The directory. */
  readonly basePath: string;
  /** Its capacity, in GiB; 0 if this writer does not keep to any. */
  readonly capacityGb: number;
  /** Bytes of the payload of each object. */
  readonly payloadBytes: number;
  /** Objects that it stores in turn. */
  readonly count: number;
  /** Number of its first object. */
  readonly first: number;
  /** Objects in a batch. */
  readonly batch: number;
  /** How room is made. */
  readonly eviction?: Readonly<Record<string, unknown>>;
  /** Whether it deletes some of what it stores. */
  readonly deletes?: boolean;
  /** Batches that it stores at most: then it does nothing until it is told to stop. */
  readonly batches?: number;
}

/** What `fill_directory.ts` says after each batch. */
export interface FillReport {
  /** Objects stored. */
  stored: number;
  /** Objects that were refused for want of room. */
  refused: number;
  /** Objects deleted. */
  deleted: number;
  /** What the adapter reported as failures. */
  readonly failures: string[];
}
