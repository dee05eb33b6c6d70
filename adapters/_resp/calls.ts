import { AdapterError, type Clock } from "../../src/l2/adapter.ts";
import { untilAborted } from "../_shared/until_aborted.ts";
import type { Connection } from "./connection.ts";
import type { ConnectionPool } from "./connection_pool.ts";

/** A store that is aborted hears for so long what became of what it has sent, in milliseconds. */
const LAST_ANSWERS_MS = 250;
/** A connection that owes an answer for so long is broken off when a call is aborted. */
const SILENT_MS = 1_000;

/** A call that its caller may stop waiting for. */
export interface Call<Value> {
  /** What it does, for errors. */
  readonly operation: string;
  /** Aborts when nobody waits any more. */
  readonly signal: AbortSignal;
  /** What it answers then. */
  readonly fallback: () => Value;
}

/**
 * Does `work` with the connections of a pool until the call is aborted; a connection that says
 * nothing is not used again then.
 *
 * @throws {AdapterError} If it fails.
 */
export async function whileWanted<Value>(
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

/** Does `work` with the connections of a pool. */
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
 * The connections of a pool, to be given back; none if `signal` aborts before they are open.
 *
 * @throws {AdapterError} If they cannot be opened.
 */
export async function takeConnections(
  pool: ConnectionPool,
  operation: string,
  signal: AbortSignal,
): Promise<readonly Connection[]> {
  const taking = pool.take();
  // What is opened for nobody is there for the next call.
  const late = (): readonly Connection[] => {
    taking.then((connections) => pool.release(connections), () => {});
    return [];
  };
  try {
    return await untilAborted(signal, taking, late);
  } catch (cause) {
    throw asAdapterError(operation, cause);
  }
}

/** Breaks connections off some time after `signal` aborts; returns what ends that. */
export function breakOffLater(
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

/** A failure as the cache knows them. */
export function asAdapterError(operation: string, cause: unknown): AdapterError {
  if (cause instanceof AdapterError) return cause;
  return new AdapterError({ adapter: "resp", operation, cause });
}
