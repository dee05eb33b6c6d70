import type { Clock } from "../../src/adapter/contract.ts";
import { untilAborted } from "../../src/base/abort.ts";
import type { Connection } from "./connection.ts";
import type { ConnectionPool } from "./connection_pool.ts";

/** Time that an aborted store waits for the answers to what it has sent, in milliseconds. */
const LAST_ANSWERS_MS = 250;
/** On an abort, connections that have been silent for this long are closed, in milliseconds. */
const SILENT_MS = 1_000;

/** The connections of a pool, for one call. */
export interface Turn {
  readonly pool: ConnectionPool;
  readonly connections: readonly Connection[];
  readonly signal: AbortSignal;
}

/** Runs `work` with the connections of a pool; silent ones are closed when `signal` aborts. */
export async function withConnections<Value>(
  pool: ConnectionPool,
  signal: AbortSignal,
  work: (turn: Turn) => Promise<Value>,
): Promise<Value> {
  const connections = await pool.take();
  const dropSilent = (): void => {
    for (const connection of connections) {
      if (connection.silentMs >= SILENT_MS) connection.destroy();
    }
  };
  signal.addEventListener("abort", dropSilent, { once: true });
  try {
    return await work({ pool, connections, signal });
  } finally {
    signal.removeEventListener("abort", dropSilent);
    pool.release(connections);
  }
}

/**
 * Takes the connections of a pool; resolves to none if `signal` aborts first. The caller releases
 * them.
 */
export async function takeConnections(
  pool: ConnectionPool,
  signal: AbortSignal,
): Promise<readonly Connection[]> {
  const taking = pool.take();
  return await untilAborted(signal, taking, () => {
    // Connections opened after the abort go to the next call.
    taking.then((connections) => pool.release(connections), () => {});
    return [];
  });
}

/** Closes connections some time after `signal` aborts; returns a function that cancels this. */
export function closeAfterAbort(
  connections: readonly Connection[],
  clock: Clock,
  signal: AbortSignal,
): () => void {
  let cancel = (): void => {};
  const start = (): void => {
    cancel = clock.schedule(() => {
      for (const connection of connections) connection.destroy();
    }, LAST_ANSWERS_MS);
  };
  if (signal.aborted) start();
  else signal.addEventListener("abort", start, { once: true });
  return () => {
    signal.removeEventListener("abort", start);
    cancel();
  };
}
