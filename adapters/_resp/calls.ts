import { AdapterError, type Clock } from "../../src/adapter/contract.ts";
import { untilAborted } from "../../src/base/abort.ts";
import type { Connection } from "./connection.ts";
import type { ConnectionPool } from "./connection_pool.ts";

/** Time that an aborted store waits for the answers to what it has sent, in milliseconds. */
const LAST_ANSWERS_MS = 250;
/** On an abort, connections that have been silent for this long are closed, in milliseconds. */
const SILENT_MS = 1_000;

/** A call that may be abandoned by its caller. */
export interface Call<Value> {
  /** Operation that errors name. */
  readonly operation: string;
  /** Aborts when the caller stops waiting. */
  readonly signal: AbortSignal;
  /** Result after an abort. */
  readonly fallback: () => Value;
}

/**
 * Runs `work` with the connections of a pool until the call is aborted; silent connections are
 * closed then.
 *
 * @throws {AdapterError} If `work` fails.
 */
export async function runAbortable<Value>(
  pool: ConnectionPool,
  { operation, signal, fallback }: Call<Value>,
  work: (connections: readonly Connection[]) => Promise<Value>,
): Promise<Value> {
  let used: readonly Connection[] = [];
  const run = async (): Promise<Value> => {
    try {
      return await withConnections(pool, (connections) => work(used = connections));
    } catch (cause) {
      throw asAdapterError(operation, cause);
    }
  };
  const dropSilent = (): void => {
    for (const connection of used) if (connection.silentMs >= SILENT_MS) connection.destroy();
  };
  signal.addEventListener("abort", dropSilent, { once: true });
  try {
    return await untilAborted(signal, run(), fallback);
  } finally {
    signal.removeEventListener("abort", dropSilent);
  }
}

/** Runs `work` with the connections of a pool. */
export async function withConnections<Value>(
  pool: ConnectionPool,
  work: (connections: readonly Connection[]) => Promise<Value>,
): Promise<Value> {
  const connections = await pool.take();
  try {
    return await work(connections);
  } finally {
    pool.release(connections);
  }
}

/**
 * Takes the connections of a pool; resolves to none if `signal` aborts first. The caller releases
 * them.
 *
 * @throws {AdapterError} If no connection can be opened.
 */
export async function takeConnections(
  pool: ConnectionPool,
  operation: string,
  signal: AbortSignal,
): Promise<readonly Connection[]> {
  const taking = pool.take();
  // Connections opened after the abort go to the next call.
  const releaseLater = (): readonly Connection[] => {
    taking.then((connections) => pool.release(connections), () => {});
    return [];
  };
  try {
    return await untilAborted(signal, taking, releaseLater);
  } catch (cause) {
    throw asAdapterError(operation, cause);
  }
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

/** Converts a failure into an {@linkcode AdapterError}. */
export function asAdapterError(operation: string, cause: unknown): AdapterError {
  if (cause instanceof AdapterError) return cause;
  return new AdapterError({ adapter: "resp", operation, cause });
}
