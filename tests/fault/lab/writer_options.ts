/** What `writer.ts` does. */
export interface WriterOptions {
  /** The directory to store into. */
  readonly basePath: string;
  /** Objects in its set. */
  readonly count: number;
  /** Bytes of the payload of each. */
  readonly payloadBytes: number;
  /** What the adapter syncs. */
  readonly durability: "none" | "file" | "full";
  /** Objects in a batch. */
  readonly batch: number;
  /** The number of the object that it stores first. @default {0} */
  readonly first?: number;
  /** How often it stores the set; left out, until it is killed. */
  readonly rounds?: number;
  /** Without the adapter, by writing each file in place. */
  readonly inPlace?: boolean;
  /** A store that fails does not end it. */
  readonly mayFail?: boolean;
  /** It says which objects are stored. */
  readonly acknowledges?: boolean;
}
