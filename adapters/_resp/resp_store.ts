import { Buffer } from "node:buffer";
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
} from "../../src/l2/adapter.ts";
import { Capacity, type CapacityBounds, type FoundObject } from "../_shared/capacity.ts";
import { Failures } from "../_shared/failures.ts";
import { FlightLimit } from "../_shared/flight_limit.ts";
import { KeyLocks } from "../_shared/key_locks.ts";
import { untilAborted } from "../_shared/until_aborted.ts";
import {
  asAdapterError,
  breakOffLater,
  takeConnections,
  whileWanted,
  withConnections,
} from "./calls.ts";
import type { Connection, ServerSettings } from "./connection.ts";
import { ConnectionPool } from "./connection_pool.ts";
import { decodeHead, MAX_CHUNKS } from "./object_head.ts";
import type { ObjectNames } from "./object_names.ts";
import { ObjectReader } from "./object_reader.ts";
import { ObjectWriter } from "./object_writer.ts";
import { ConnectionError, ReplyError } from "./resp_error.ts";
import { REMOVE, TOUCH } from "./scripts.ts";
import { listServers } from "./server_listing.ts";

/** What is in flight at a time. */
const WRITES = { operations: 4096, bytes: 64 * 2 ** 20 };
/** More answers that wait are only more memory for the server to fill, which makes it slower. */
const READS = { operations: 4096, bytes: 8 * 2 ** 20 };
/** Bytes of a batch that keeps a server busy. */
const PREFERRED_BYTES = 16 * 2 ** 20;
/** Objects that are removed at a time. */
const REMOVAL_BATCH = 128;
/** What others did is looked up again after so long, in milliseconds, if anything is stored. */
const RECOUNT_MS = 60_000;
/** Keys of a chain that are looked up before the answers decide whether more are. */
const CHAIN_STEP = 512;
/** How a {@linkcode RespStore} is set up. */
export interface RespStoreOptions {
  /** The servers. */
  readonly settings: ServerSettings;
  /** How objects are called. */
  readonly names: ObjectNames;
  /** Connections for stores, and as many for everything else. */
  readonly connections: number;
  /** Bytes of a chunk. */
  readonly chunkBytes: number;
  /** After so many milliseconds objects expire; 0: never. */
  readonly ttlMs: number;
  /** What this adapter keeps within bounds by itself; left out, that is the server's work. */
  readonly bounds: CapacityBounds | undefined;
  /** Told about failures that cost a key. */
  readonly onError: (error: AdapterError) => void;
  /** Told which objects were removed to make room. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** Objects on a server that speaks RESP, or on a cluster of them. */
export class RespStore implements L2Adapter {
  /** Others see the objects; whether they survive the server is its own affair. */
  readonly capabilities: L2Adapter["capabilities"];
  /** What is counted; left out where the server evicts, because it would have to list all. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  readonly #options: RespStoreOptions;
  /** Stores have connections of their own: one that is aborted has to break them off. */
  readonly #writes: ConnectionPool;
  readonly #reads: ConnectionPool;
  readonly #writeLimit = new FlightLimit(WRITES);
  readonly #readLimit = new FlightLimit(READS);
  readonly #writer: ObjectWriter;
  readonly #reader: ObjectReader;
  readonly #locks = new KeyLocks();
  readonly #capacity: Capacity | undefined;
  readonly #closing = new AbortController();
  #touching: Promise<void> | undefined;

  /** Connects when it is used. */
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
    this.#writer = new ObjectWriter(options);
    this.#reader = new ObjectReader(names);
    this.#capacity = bounds && new Capacity({
      ...bounds,
      adapter: "resp",
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      scan: (book, signal) => this.#scan((key) => book.get(key) !== undefined, signal, () => {}),
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
   * Asks a server something, to find out whether it can be used.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If it does not answer.
   */
  async ask(command: readonly string[]): Promise<unknown> {
    return await withConnections(this.#reads, async ([connection]) => {
      const [node] = await connection?.nodes() ?? [];
      return await node?.send(command);
    });
  }

  /** Begins to count what is there, where that bounds it. */
  start(): void {
    this.#capacity?.tend();
  }

  /**
   * Writes objects. When it is aborted, nothing more is published; what a server does not answer
   * soon then is broken off, so that no buffer of the caller stays in use.
   */
  async store(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    if (signal.aborted || objects.length === 0) return { stored, bytes: 0 };
    const failures = new Failures("resp", "store");
    const connections = await takeConnections(this.#writes, "store", signal);
    const stopWaiting = breakOffLater(connections, this.#options.settings.clock, signal);
    let bytes = 0;
    let begun = 0;
    let hasRoom: readonly boolean[] | undefined;
    try {
      hasRoom = await this.#capacity?.reserve(objects, signal);
      await this.#writeLimit.forEach(objects, byteLengthOf, signal, async (object, index) => {
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
          // What was not refused may be there: counted too much is put right by the next count.
          this.#capacity?.settle(object, cause instanceof ConnectionError);
          if (!signal.aborted) failures.add(object.key, cause);
        }
        if (!isStored) return;
        stored.set(index);
        bytes += object.byteLength;
      });
    } finally {
      stopWaiting();
      this.#writes.release(connections);
      for (const [index, object] of objects.entries()) {
        if (index >= begun && hasRoom?.[index]) this.#capacity?.settle(object, false);
      }
    }
    this.#capacity?.book.touch(stored.gather(objects).map(({ key }) => key));
    this.#capacity?.tend();
    this.#report(failures, connections.every(({ isLost }) => isLost) ? objects.length : Infinity);
    return { stored, bytes };
  }

  /** Asks for all keys at once, or for a chain in long steps until one has a gap. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const nothing = (): Bitmap => new Bitmap(keys.length);
    if (signal.aborted || keys.length === 0) return nothing();
    const forget = this.#capacity?.book.forgetter(keys);
    const found = await this.#locks.lockFound(keys, prefix, () =>
      whileWanted(
        this.#reads,
        { operation: "lookup", signal, fallback: nothing },
        async (connections) => {
          const found = new Bitmap(keys.length);
          const step = prefix ? CHAIN_STEP : keys.length;
          for (let start = 0; start < keys.length && !signal.aborted; start += step) {
            const asked = keys.slice(start, start + step);
            await this.#lookupStep(connections, asked, signal, {
              present: (i) => found.set(start + i),
              absent: (i) => forget?.(asked[i] as ObjectKey),
            });
            if (prefix && found.countLeadingOnes() < start + step) break;
          }
          return found;
        },
      ));
    this.#capacity?.book.touch(found.gather(keys));
    return found;
  }

  /** Lets objects be evicted again. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#locks.remove(keys);
  }

  /** Notes uses of objects here and on the server, one batch at a time. */
  touch(keys: readonly ObjectKey[]): void {
    this.#capacity?.book.touch(keys);
    this.#touching ??= this.#touchOnServer(keys)
      .catch(() => {})
      .finally(() => this.#touching = undefined);
  }

  /** Reads objects into their parts, each as soon as its bytes arrive. */
  async load(
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false }: LoadOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    if (signal.aborted || objects.length === 0) return loaded;
    await whileWanted(
      this.#reads,
      { operation: "load", signal, fallback: () => {} },
      async (connections) => {
        const failures = new Failures("resp", "load");
        const forget = this.#capacity?.book.forgetter(objects.map(({ key }) => key));
        await this.#readLimit.forEach(objects, byteLengthOf, signal, async (object, index) => {
          if (signal.aborted) return;
          try {
            const outcome = await this.#onRightServer(
              this.#reads,
              at(connections, index),
              signal,
              (connection) => this.#reader.read(connection, object, allowShorter, signal),
            );
            if (signal.aborted) return;
            if (outcome === "absent") forget?.(object.key);
            if (outcome === "damaged") onLoaded?.(index, "magic");
            if (outcome === "different") onLoaded?.(index, "layout");
            if (outcome !== "filled") return;
            loaded.set(index);
            onLoaded?.(index);
          } catch (cause) {
            if (!signal.aborted) failures.add(object.key, cause);
          }
        });
        this.#report(failures, objects.length);
      },
    );
    this.#capacity?.book.touch(loaded.gather(objects).map(({ key }) => key));
    // Nobody changes the answer after it was given.
    return loaded.and(loaded);
  }

  /** Removes objects with their chunks. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const deleted = new Bitmap(keys.length);
    let bytes = 0;
    if (signal.aborted || keys.length === 0) return { deleted, bytes };
    await whileWanted(
      this.#reads,
      { operation: "delete", signal, fallback: () => {} },
      async (connections) => {
        const failures = new Failures("resp", "delete");
        const forget = this.#capacity?.book.forgetter(keys);
        await Promise.all(keys.map(async (key, index) => {
          if (!this.#locks.startRemoval(key)) return;
          const head = this.#options.names.headOf(key);
          try {
            const command = ["EVAL", REMOVE, "1", head, ""];
            const old = await this.#onRightServer(
              this.#reads,
              at(connections, index),
              signal,
              (connection) => connection.send(head, command, signal),
            );
            forget?.(key);
            if (signal.aborted || !Buffer.isBuffer(old) || old.byteLength === 0) return;
            deleted.set(index);
            bytes += decodeHead(old)?.byteLength ?? 0;
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
   * Enumerates the objects of all servers.
   *
   * @throws {AdapterError} After the others, if there are objects that cannot be told.
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
      `${unread} objects were left out: the server does not tell their keys, or moves them now`,
    );
    throw new AdapterError({ adapter: "resp", operation: "list", cause });
  }

  /** How the servers are reached, and who evicts. */
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
   * Does `work` with a connection of a pool; once more with a new one if the answer says that the
   * connection leads to the wrong server, as after a failover behind one name.
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
      this.#reads.distrust();
      this.#writes.distrust();
      // One that is new leads where the name leads: another would not do better.
      if (!connection.isLost || signal.aborted) throw error;
    }
    return await withConnections(pool, async (connections) => {
      const stopWaiting = breakOffLater(connections, this.#options.settings.clock, signal);
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
      // The server's clock is coarse: what is asked last counts as used last.
      await this.#readLimit.forEach(keys.toReversed(), () => 0, signal, async (key) => {
        const head = this.#options.names.headOf(key);
        // A use that is not noted costs nothing but its place in the order.
        await at(connections, 0).send(head, ["EVAL", TOUCH, "1", head], signal).catch(() => {});
      });
    });
  }

  async #lookupStep(
    connections: readonly Connection[],
    asked: readonly ObjectKey[],
    signal: AbortSignal,
    tell: { readonly present: (i: number) => void; readonly absent: (i: number) => void },
  ): Promise<void> {
    const failures = new Failures("resp", "lookup");
    await Promise.all(asked.map(async (key, i) => {
      const head = this.#options.names.headOf(key);
      try {
        const answer = await this.#onRightServer(
          this.#reads,
          at(connections, i),
          signal,
          (connection) => connection.send(head, ["EXISTS", head], signal),
        );
        if (answer === 1) tell.present(i);
        else tell.absent(i);
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

  /** Reports what failed; throws if that is everything. */
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
