/**
 * Yields to the event loop. Work on the CPU and promises that are already resolved do not: without
 * this, timers, signals, files and connections would stall.
 */
export function turnEventLoop(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
