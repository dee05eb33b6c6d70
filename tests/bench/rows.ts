/** One line of a benchmark. */
export interface Row {
  /** Where the objects lay. */
  readonly device: string;
  /** What was done. */
  readonly operation: string;
  /** Size of an object. */
  readonly objectBytes: number;
  /** Median time, or time per something that the operation names. */
  readonly medianMs: number;
  /** Speed, where bytes moved. */
  readonly gbps?: number;
  /** Speed as a share of the plain loop's, where there is one. */
  readonly ofLimit?: number;
}

/** Milliseconds that something takes. */
export async function time(run: () => unknown): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}
