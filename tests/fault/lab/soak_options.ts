/** Options of `soak_directory.ts`. */
export interface SoakOptions {
  /** The directory. */
  readonly basePath: string;
  /** Duration in seconds. */
  readonly seconds: number;
  /** Random seed. */
  readonly seed: number;
  /** For the control: leaks files and memory. */
  readonly leaks?: boolean;
}

/** Resources of the process at one time. */
export interface Sample {
  /** Time since the start, in minutes. */
  readonly minutes: number;
  /** Memory of the process, in MiB. */
  readonly rssMib: number;
  /** Open files. */
  readonly openFiles: number;
}

/** Output of `soak_directory.ts`. */
export interface SoakReport {
  /** Rounds of work. */
  readonly rounds: number;
  /** Objects put into the cache. */
  readonly puts: number;
  /** Objects found, in memory or on disk. */
  readonly hits: number;
  /** Objects with wrong bytes. */
  readonly wrong: number;
  /** Objects deleted from the directory. */
  readonly deleted: number;
  /** Objects evicted from the directory. */
  readonly evicted: number;
  /** Problems that the cache reported at the end. */
  readonly problems: readonly string[];
  /** Bytes left in the cache after everything was removed. */
  readonly bytesHeld: number;
  /** Open files before the cache was opened and after it was closed. */
  readonly openFiles: readonly [before: number, after: number];
  /** Samples during the run. */
  readonly samples: readonly Sample[];
}
