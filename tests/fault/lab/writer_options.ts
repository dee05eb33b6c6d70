/** Options of `writer.ts`. */
export interface WriterOptions {
  /** The directory to store into. */
  readonly basePath: string;
  /** Number of objects. */
  readonly count: number;
  /** Payload size of each object in bytes. */
  readonly payloadBytes: number;
  /** The `durability` of the adapter. */
  readonly durability: "none" | "file" | "full";
  /** Objects per batch. */
  readonly batch: number;
  /** Number of the first object. @default {0} */
  readonly first?: number;
  /** Number of times to store the set; until it is killed, if left out. */
  readonly rounds?: number;
  /** Whether to write each file in place, without the adapter. */
  readonly inPlace?: boolean;
  /** Whether to continue after failed stores. */
  readonly mayFail?: boolean;
  /** Whether to print the stored objects. */
  readonly acknowledges?: boolean;
}
