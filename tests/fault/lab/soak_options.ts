/** What `soak_directory.ts` does. */
export interface SoakOptions {
  /** The directory. */
  readonly basePath: string;
  /** How long, in seconds. */
  readonly seconds: number;
  /** Where its random numbers start. */
  readonly seed: number;
  /** As a control: it leaves files open, and keeps memory. */
  readonly leaks?: boolean;
}

/** What the process had at a moment. */
export interface Sample {
  /** Since the start, in minutes. */
  readonly minutes: number;
  /** Memory of the process, in MiB. */
  readonly rssMib: number;
  /** Open files. */
  readonly openFiles: number;
}

/** What `soak_directory.ts` says. */
export interface SoakReport {
  /** Rounds of work. */
  readonly rounds: number;
  /** Objects put into the cache. */
  readonly puts: number;
  /** Objects that the cache had, in memory or on disk. */
  readonly hits: number;
  /** Objects whose bytes were wrong. */
  readonly wrong: number;
  /** Objects deleted from the directory. */
  readonly deleted: number;
  /** Objects evicted from the directory. */
  readonly evicted: number;
  /** Problems that the cache reported at the end. */
  readonly problems: readonly string[];
  /** Bytes that the cache still holds when everything is removed from it. */
  readonly bytesHeld: number;
  /** Open files before the cache was opened, and after it was closed. */
  readonly openFiles: readonly [before: number, after: number];
  /** What was seen meanwhile. */
  readonly samples: readonly Sample[];
}
