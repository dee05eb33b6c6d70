/** Options of `fill_directory.ts`. */
export interface FillOptions {
  /** The directory. */
  readonly basePath: string;
  /** Its capacity in GiB; 0 if this writer ignores the capacity. */
  readonly capacityGb: number;
  /** Payload size of each object in bytes. */
  readonly payloadBytes: number;
  /** Number of distinct objects. */
  readonly count: number;
  /** Number of its first object. */
  readonly first: number;
  /** Objects in a batch. */
  readonly batch: number;
  /** Eviction policy. */
  readonly eviction?: Readonly<Record<string, unknown>>;
  /** Whether it deletes some of its objects. */
  readonly deletes?: boolean;
  /** Maximum number of batches; afterwards it idles until it is stopped. */
  readonly batches?: number;
}

/** Output of `fill_directory.ts` after each batch. */
export interface FillReport {
  /** Objects stored. */
  stored: number;
  /** Objects rejected for lack of space. */
  refused: number;
  /** Objects deleted. */
  deleted: number;
  /** Errors that the adapter reported. */
  readonly failures: string[];
}
