import { Buffer } from "node:buffer";
import { Limiter } from "../../src/base/limiter.ts";
import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  type CallOptions,
  type DeleteResult,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
} from "../../src/adapter/contract.ts";
import { Capacity, type CapacityBounds, type FoundObject } from "../_shared/capacity.ts";
import { Failures } from "../_shared/failures.ts";
import { KeyLocks } from "../_shared/key_locks.ts";
import { untilAborted } from "../../src/base/abort.ts";
import {
  asAdapterError,
  closeAfterAbort,
  runAbortable,
  takeConnections,
  withConnections,
} from "./calls.ts";
import type { Connection, ServerSettings } from "./connection.ts";
import { ConnectionPool } from "./connection_pool.ts";
import { decodeManifest, MAX_CHUNKS } from "./object_head.ts";
import type { RespObjectNames } from "./object_names.ts";
import { RespObjectReader } from "./object_reader.ts";
import { RespObjectWriter } from "./object_writer.ts";
import { ConnectionError, ReplyError } from "./resp_error.ts";
import { REMOVE, TOUCH } from "./scripts.ts";
import { listServers } from "./server_listing.ts";

/** Limits of stores in flight. */
const WRITES = { operations: 4096, bytes: 64 * 2 ** 20 };
/**
 * Limits of loads in flight. More would only fill the server's output buffers, which slows it down.
 */
const READS = { operations: 4096, bytes: 8 * 2 ** 20 };
/** Batch size that keeps a server busy, in bytes. */
const PREFERRED_BYTES = 16 * 2 ** 20;
/** Max objects per eviction call. */
const REMOVAL_BATCH = 128;
/** Time between two counts of the objects, if anything is stored, in milliseconds. */
const RECOUNT_MS = 60_000;
/** Keys of a chain per lookup round. */
const CHAIN_STEP = 512;
/** Options of a {@linkcode RespStore}. */
export interface RespStoreOptions {
  readonly settings: ServerSettings;
  readonly names: RespObjectNames;
  /** Number of connections for stores, and for everything else. */
  readonly connections: number;
  readonly chunkBytes: number;
  /** Lifetime of objects in milliseconds; 0: unlimited. */
  readonly ttlMs: number;
  /** Capacity that this adapter enforces; `undefined` if the server evicts. */
  readonly bounds: CapacityBounds | undefined;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** Objects on a server that speaks RESP, or on a cluster of them. */
export class RespStore implements L2Adapter {
  /**
   * Objects are shared. Whether they survive a restart of the server depends on its persistence.
   */
  readonly capabilities: L2Adapter["capabilities"];
  /** Counted objects and bytes; absent if the server evicts, because that would list everything. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  readonly #options: RespStoreOptions;
  /** Stores have separate connections, because an aborted store may have to close its own. */
  readonly #writes: ConnectionPool;
  readonly #reads: ConnectionPool;
  readonly #writeLimiter = new Limiter(WRITES);
  readonly #readLimiter = new Limiter(READS);
  readonly #writer: RespObjectWriter;
  readonly #reader: RespObjectReader;
  readonly #locks = new KeyLocks();
  readonly #capacity: Capacity | undefined;
  readonly #closing = new AbortController();
  #touching: Promise<void> | undefined;

  constructor(options: RespStoreOptions) {
    const { settings, names, connections, chunkBytes, bounds, onError } = options;
    this.#options = options;
    this.capabilities = {
      shared: true,
      durable: true,
      evicts: true,
      acceptsShortObjects: true,
      maxObjectBytes: chunkBytes * MAX_CHUNKS,
      preferredBytesInFlight: PREFERRED_BYTES,
    };
    this.#writes = new ConnectionPool(settings, connections);
    this.#reads = new ConnectionPool(settings, connections);
    this.#writer = new RespObjectWriter(options);
    this.#reader = new RespObjectReader(names);
    this.#capacity = bounds && new Capacity({
      ...bounds,
      adapter: "resp",
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      scan: (index, signal) => this.#scan((key) => index.get(key) !== undefined, signal, () => {}),
      remove: (keys, signal) => this.delete(keys, { signal }),
      isLocked: (key) => this.#locks.has(key),
      clock: settings.clock,
      onError,
      onEvicted: options.onEvicted,
    });
    const capacity = this.#capacity;
    if (capacity !== undefined) this.usage = (call) => capacity.usage(call);
  }

  /**
   * Sends a command to check that a server can be used.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If the server does not answer.
   */
  async ask(command: readonly string[]): Promise<unknown> {
    return await withConnections(this.#reads, async ([connection]) => {
      const [node] = await connection?.nodes() ?? [];
      return await node?.send(command);
    });
  }

  /** Starts the first count, if there is a capacity. */
  start(): void {
    this.#capacity?.maintain();
  }

  /**
   * Stores objects. After an abort, nothing more is published, and connections that do not answer
   * soon are closed, so that no buffer of the caller stays in use.
   */
  async store(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    if (signal.aborted || objects.length === 0) return { stored, bytes: 0 };
    const failures = new Failures("resp", "store");
    const connections = await takeConnections(this.#writes, "store", signal);
    const stopWaiting = closeAfterAbort(connections, this.#options.settings.clock, signal);
    let bytes = 0;
    let begun = 0;
    let hasRoom: readonly boolean[] | undefined;
    try {
      hasRoom = await this.#capacity?.reserve(objects, signal);
      await this.#writeLimiter.forEach(objects, byteLengthOf, async (object, index) => {
        begun++;
        if (hasRoom?.[index] === false) return;
        let isStored = false;
        try {
          isStored = !signal.aborted &&
            await this.#onRightServer(
              this.#writes,
              at(connections, index),
              signal,
              (connection) => this.#writer.write(connection, object, signal),
            );
          this.#capacity?.settle(object, isStored);
        } catch (cause) {
          // Without a refusal the object may exist. The next count corrects it if it does not.
          this.#capacity?.settle(object, cause instanceof ConnectionError);
          if (!signal.aborted) failures.add(object.key, cause);
        }
        if (!isStored) return;
        stored.set(index);
        bytes += object.byteLength;
      }, signal);
    } finally {
      stopWaiting();
      this.#writes.release(connections);
      for (const [index, object] of objects.entries()) {
        if (index >= begun && hasRoom?.[index]) this.#capacity?.settle(object, false);
      }
    }
    this.#capacity?.index.touch(stored.gather(objects).map(({ key }) => key));
    this.#capacity?.maintain();
    this.#report(failures, connections.every(({ isLost }) => isLost) ? objects.length : Infinity);
    return { stored, bytes };
  }

  /** Looks up all keys at once, or a chain in long steps until a key is missing. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const nothing = (): Bitmap => new Bitmap(keys.length);
    if (signal.aborted || keys.length === 0) return nothing();
    const removeStale = this.#capacity?.index.staleRemover(keys);
    const found = await this.#locks.lockFound(keys, prefix, () =>
      runAbortable(
        this.#reads,
        { operation: "lookup", signal, fallback: nothing },
        async (connections) => {
          const found = new Bitmap(keys.length);
          const step = prefix ? CHAIN_STEP : keys.length;
          for (let start = 0; start < keys.length && !signal.aborted; start += step) {
            const asked = keys.slice(start, start + step);
            await this.#lookupStep(connections, asked, signal, {
              present: (i) => found.set(start + i),
              absent: (i) => removeStale?.(asked[i] as ObjectKey),
            });
            if (prefix && found.countLeadingOnes() < start + step) break;
          }
          return found;
        },
      ));
    this.#capacity?.index.touch(found.gather(keys));
    return found;
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#locks.remove(keys);
  }

  /**
   * Records uses of objects, also on the server. Drops the server part while another is in
   * progress.
   */
  touch(keys: readonly ObjectKey[]): void {
    this.#capacity?.index.touch(keys);
    this.#touching ??= this.#touchOnServer(keys)
      .catch(() => {})
      .finally(() => this.#touching = undefined);
  }

  /** Loads objects into their parts, each as soon as its bytes arrive. */
  async load(
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false }: LoadOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    if (signal.aborted || objects.length === 0) return loaded;
    await runAbortable(
      this.#reads,
      { operation: "load", signal, fallback: () => {} },
      async (connections) => {
        const failures = new Failures("resp", "load");
        const removeStale = this.#capacity?.index.staleRemover(objects.map(({ key }) => key));
        await this.#readLimiter.forEach(objects, byteLengthOf, async (object, index) => {
          if (signal.aborted) return;
          try {
            const outcome = await this.#onRightServer(
              this.#reads,
              at(connections, index),
              signal,
              (connection) => this.#reader.read(connection, object, allowShorter, signal),
            );
            if (signal.aborted) return;
            if (outcome === "absent") removeStale?.(object.key);
            if (outcome === "damaged") onLoaded?.(index, "magic");
            if (outcome === "different") onLoaded?.(index, "layout");
            if (outcome !== "filled") return;
            loaded.set(index);
            onLoaded?.(index);
          } catch (cause) {
            if (!signal.aborted) failures.add(object.key, cause);
          }
        }, signal);
        this.#report(failures, objects.length);
      },
    );
    this.#capacity?.index.touch(loaded.gather(objects).map(({ key }) => key));
    // A copy: the caller's bitmap does not change after an abort.
    return loaded.and(loaded);
  }

  /** Removes objects and their chunks. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const deleted = new Bitmap(keys.length);
    let bytes = 0;
    if (signal.aborted || keys.length === 0) return { deleted, bytes };
    await runAbortable(
      this.#reads,
      { operation: "delete", signal, fallback: () => {} },
      async (connections) => {
        const failures = new Failures("resp", "delete");
        const removeStale = this.#capacity?.index.staleRemover(keys);
        await Promise.all(keys.map(async (key, index) => {
          if (!this.#locks.startRemoval(key)) return;
          const manifestKey = this.#options.names.manifestKeyOf(key);
          try {
            const command = ["EVAL", REMOVE, "1", manifestKey, ""];
            const old = await this.#onRightServer(
              this.#reads,
              at(connections, index),
              signal,
              (connection) => connection.send(manifestKey, command, signal),
            );
            removeStale?.(key);
            if (signal.aborted || !Buffer.isBuffer(old) || old.byteLength === 0) return;
            deleted.set(index);
            bytes += decodeManifest(old)?.byteLength ?? 0;
          } catch (cause) {
            if (!signal.aborted) failures.add(key, cause);
          } finally {
            this.#locks.endRemoval(key);
          }
        }));
        this.#report(failures, keys.length);
      },
    );
    return { deleted: deleted.and(deleted), bytes };
  }

  /**
   * Lists the objects of all servers.
   *
   * @throws {AdapterError} After the last object, if some objects could not be identified.
   */
  async *list({ model, signal }: ListOptions): AsyncIterable<ListedObject> {
    let unread = 0;
    const objects = this.#scan(() => false, signal, () => unread++);
    for await (const { key, byteLength = 0, usedAt } of objects) {
      if (model !== undefined && key.model !== model) continue;
      yield { key, byteLength, ...(usedAt === undefined ? {} : { usedAt }) };
    }
    if (unread === 0) return;
    const cause = new Error(
      `${unread} objects were left out: the server does not return their keys, or is moving them`,
    );
    throw new AdapterError({ adapter: "resp", operation: "list", cause });
  }

  /** Connection settings and counts, and the capacity figures. */
  reportStatus(): Readonly<Record<string, unknown>> {
    const { settings, chunkBytes, ttlMs } = this.#options;
    const capacity = this.#capacity;
    return {
      servers: settings.servers.map(({ host, port }) => `${host}:${port}`),
      isCluster: settings.isCluster,
      isEncrypted: settings.tls !== undefined,
      openConnections: this.#reads.openCount + this.#writes.openCount,
      openedConnections: this.#reads.openedCount + this.#writes.openedCount,
      chunkBytes,
      ttlMs,
      lockedObjects: this.#locks.size,
      evictedBy: capacity === undefined ? "server" : "kvtier",
      ...capacity?.reportStatus(),
    };
  }

  /** Closes all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    const counting = this.#capacity?.[Symbol.asyncDispose]();
    await Promise.all([
      this.#reads[Symbol.asyncDispose](),
      this.#writes[Symbol.asyncDispose](),
      counting,
      this.#touching,
    ]);
  }

  /**
   * Runs `work` with a connection of a pool. Repeats it once with a new connection if the answer
   * shows that this one leads to the wrong server, as after a failover behind one name.
   */
  async #onRightServer<Value>(
    pool: ConnectionPool,
    connection: Connection,
    signal: AbortSignal,
    work: (connection: Connection) => Promise<Value>,
  ): Promise<Value> {
    try {
      return await work(connection);
    } catch (error) {
      if (!(error instanceof ReplyError) || !error.isWrongServer) throw error;
      this.#reads.replaceAll();
      this.#writes.replaceAll();
      // A connection that was just opened already uses the current address of the server.
      if (!connection.isLost || signal.aborted) throw error;
    }
    return await withConnections(pool, async (connections) => {
      const stopWaiting = closeAfterAbort(connections, this.#options.settings.clock, signal);
      try {
        return await work(at(connections, 0));
      } finally {
        stopWaiting();
      }
    });
  }

  async #touchOnServer(keys: readonly ObjectKey[]): Promise<void> {
    const { signal } = this.#closing;
    await withConnections(this.#reads, async (connections) => {
      // The server's clock is coarse: the last command counts as the most recent use.
      await this.#readLimiter.forEach(keys.toReversed(), () => 0, async (key) => {
        const manifestKey = this.#options.names.manifestKeyOf(key);
        // Without the touch, only the eviction order is less exact.
        await at(connections, 0).send(manifestKey, ["EVAL", TOUCH, "1", manifestKey], signal).catch(
          () => {},
        );
      }, signal);
    });
  }

  async #lookupStep(
    connections: readonly Connection[],
    asked: readonly ObjectKey[],
    signal: AbortSignal,
    report: { readonly present: (i: number) => void; readonly absent: (i: number) => void },
  ): Promise<void> {
    const failures = new Failures("resp", "lookup");
    await Promise.all(asked.map(async (key, i) => {
      const manifestKey = this.#options.names.manifestKeyOf(key);
      try {
        const answer = await this.#onRightServer(
          this.#reads,
          at(connections, i),
          signal,
          (connection) => connection.send(manifestKey, ["EXISTS", manifestKey], signal),
        );
        if (answer === 1) report.present(i);
        else report.absent(i);
      } catch (cause) {
        if (!signal.aborted) failures.add(key, cause);
      }
    }));
    this.#report(failures, asked.length);
  }

  async *#scan(
    isKnown: (key: ObjectKey) => boolean,
    signal: AbortSignal,
    onUnread: () => void,
  ): AsyncIterable<FoundObject> {
    const { names } = this.#options;
    const connections = await takeConnections(this.#reads, "list", signal);
    try {
      const [connection] = connections;
      if (connection === undefined || signal.aborted) return;
      const nodes = await untilAborted(signal, connection.nodes(), () => []);
      const waiting = nodes.map(({ send }) => ({
        send: (command: Parameters<typeof send>[0]) =>
          untilAborted(signal, send(command, signal), () => null),
      }));
      yield* listServers(waiting, { names, isKnown, onUnread, signal });
    } catch (cause) {
      throw asAdapterError("list", cause);
    } finally {
      this.#reads.release(connections);
    }
  }

  /** Reports the failures; throws if all objects failed. */
  #report(failures: Failures, count: number): void {
    const errors = failures.errors();
    const [first] = errors;
    if (first !== undefined && failures.isAll(count)) throw first;
    for (const error of errors) this.#options.onError(error);
  }
}

function at(connections: readonly Connection[], index: number): Connection {
  const connection = connections[index % connections.length];
  if (connection === undefined) throw new RangeError("There is no connection");
  return connection;
}

function byteLengthOf({ byteLength }: AdapterObject): number {
  return byteLength;
}
