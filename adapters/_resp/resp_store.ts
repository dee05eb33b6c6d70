import { Buffer } from "node:buffer";
import { untilAborted } from "../../src/base/abort.ts";
import {
  Bitmap,
  type FoundObject,
  type ObjectKey,
  type RemovalResult,
} from "../../src/adapter/contract.ts";
import {
  byteLengthOf,
  findInSteps,
  type FoundKeys,
  type LoadCall,
  type LookupCall,
  type RemoteOptions,
  RemoteStore,
  type RemoveCall,
  type ScanCall,
  type StoreCall,
} from "../_remote/remote_store.ts";
import { closeAfterAbort, takeConnections, type Turn, withConnections } from "./calls.ts";
import type { Connection, Reply, RespCommand, ServerSettings } from "./connection.ts";
import { ConnectionPool } from "./connection_pool.ts";
import { decodeManifest, MAX_CHUNKS } from "./object_head.ts";
import { RespObjectReader } from "./object_reader.ts";
import { RespObjectWriter, type RespObjectWriterOptions } from "./object_writer.ts";
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
export interface RespStoreOptions extends Omit<RemoteOptions, "clock">, RespObjectWriterOptions {
  readonly settings: ServerSettings;
  /** Number of connections for stores, and for everything else. */
  readonly connections: number;
}

/** Objects on a server that speaks RESP, or on a cluster of them. */
export class RespStore extends RemoteStore {
  readonly #options: RespStoreOptions;
  /** Stores have separate connections, because an aborted store may have to close its own. */
  readonly #writes: ConnectionPool;
  readonly #reads: ConnectionPool;
  readonly #writer: RespObjectWriter;
  readonly #reader: RespObjectReader;
  readonly #closing = new AbortController();
  #touching: Promise<void> | undefined;

  constructor(options: RespStoreOptions) {
    const { settings, names, connections, chunkBytes } = options;
    super({ ...options, clock: settings.clock }, {
      type: "resp",
      // Whether objects survive a restart of the server depends on its persistence.
      capabilities: {
        shared: true,
        durable: true,
        evicts: true,
        acceptsShortObjects: true,
        maxObjectBytes: chunkBytes * MAX_CHUNKS,
        preferredBytesInFlight: PREFERRED_BYTES,
      },
      canDelete: true,
      canList: true,
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      writes: WRITES,
      reads: READS,
    });
    this.#options = options;
    this.#writes = new ConnectionPool(settings, connections);
    this.#reads = new ConnectionPool(settings, connections);
    this.#writer = new RespObjectWriter(options);
    this.#reader = new RespObjectReader(names);
  }

  /**
   * Sends a command to check that a server can be used.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If the server does not answer.
   */
  async ask(command: readonly string[]): Promise<unknown> {
    return await withConnections(this.#reads, this.#closing.signal, async ({ connections }) => {
      const [node] = await at(connections, 0).nodes();
      return await node?.send(command);
    });
  }

  /**
   * Records uses of objects, also on the server. Drops the server part while another is in
   * progress.
   */
  override touch(keys: readonly ObjectKey[]): void {
    super.touch(keys);
    this.#touching ??= this.#touchOnServer(keys)
      .catch(() => {})
      .finally(() => this.#touching = undefined);
  }

  /**
   * After an abort, nothing more is published, and connections that do not answer soon are closed,
   * so that no buffer of the caller stays in use.
   */
  protected override async write(call: StoreCall): Promise<void> {
    const { objects, signal } = call;
    const connections = await takeConnections(this.#writes, signal);
    const turn = { pool: this.#writes, connections, signal };
    const stopWaiting = closeAfterAbort(connections, this.#options.settings.clock, signal);
    try {
      await this.writeLimiter.forEach(objects, byteLengthOf, async (object, index) => {
        if (!call.hasRoom(index) || signal.aborted) return;
        try {
          const isStored = await this.#run(turn, index, (connection) => {
            return this.#writer.write(connection, object, signal);
          });
          if (isStored) call.stored(index, object.byteLength);
        } catch (cause) {
          // Without a refusal the object may exist.
          call.failed(index, cause, cause instanceof ConnectionError);
        }
      }, signal);
    } finally {
      stopWaiting();
      this.#writes.release(connections);
    }
  }

  /** A server that refuses a store, such as a full one, may still answer loads. */
  protected override isOutage(cause: unknown): boolean {
    return !(cause instanceof ReplyError);
  }

  /** Looks up all keys at once, or a chain in long steps until a key is missing. */
  protected override async find(call: LookupCall): Promise<FoundKeys> {
    const { keys, isChain, signal } = call;
    const nothing = (): FoundKeys => ({ found: new Bitmap(keys.length), asked: 0 });
    const finding = withConnections(this.#reads, signal, async (turn) => {
      const exists = async (key: ObjectKey, i: number): Promise<boolean | Error> => {
        const manifestKey = this.#options.names.manifestKeyOf(key);
        try {
          return await this.#send(turn, i, manifestKey, ["EXISTS", manifestKey]) === 1;
        } catch (cause) {
          return cause instanceof Error ? cause : new Error(String(cause));
        }
      };
      const step = isChain ? CHAIN_STEP : keys.length;
      return await findInSteps(call, step, (asked) => Promise.all(asked.map(exists)));
    });
    return await untilAborted(signal, finding, nothing);
  }

  protected override async read(call: LoadCall): Promise<void> {
    const { allowShorter, signal } = call;
    const reading = withConnections(
      this.#reads,
      signal,
      (turn) =>
        this.readEach(call, (object, index) =>
          this.#run(turn, index, (connection) => {
            return this.#reader.read(connection, object, allowShorter, signal);
          })),
    );
    await untilAborted(signal, reading, () => {});
  }

  /** Removes objects and their chunks. */
  protected override async remove(call: RemoveCall): Promise<readonly RemovalResult[]> {
    return await withConnections(
      this.#reads,
      call.signal,
      (turn) =>
        this.removeEach(call, async (key, index) => {
          const manifestKey = this.#options.names.manifestKeyOf(key);
          const command = ["EVAL", REMOVE, "1", manifestKey, ""];
          const old = await this.#send(turn, index, manifestKey, command);
          if (!Buffer.isBuffer(old) || old.byteLength === 0) return "absent";
          return decodeManifest(old)?.byteLength ?? 0;
        }),
    );
  }

  /** Lists the objects of all servers. */
  protected override async *scan(call: ScanCall): AsyncGenerator<FoundObject, void> {
    const { names } = this.#options;
    const { signal } = call;
    const connections = await takeConnections(this.#reads, signal);
    try {
      const [connection] = connections;
      if (connection === undefined || signal.aborted) return;
      const nodes = await untilAborted(signal, connection.nodes(), () => []);
      const waiting = nodes.map(({ send }) => ({
        send: (command: Parameters<typeof send>[0]) =>
          untilAborted(signal, send(command, signal), () => null),
      }));
      yield* listServers(waiting, { ...call, names });
    } finally {
      this.#reads.release(connections);
    }
  }

  protected override describe(): Readonly<Record<string, unknown>> {
    const { settings, chunkBytes, ttlMs } = this.#options;
    return {
      servers: settings.servers.map(({ host, port }) => `${host}:${port}`),
      isCluster: settings.isCluster,
      isEncrypted: settings.tls !== undefined,
      openConnections: this.#reads.openCount + this.#writes.openCount,
      openedConnections: this.#reads.openedCount + this.#writes.openedCount,
      chunkBytes,
      ttlMs,
      evictedBy: this.capacity.isBounded ? "kvtier" : "server",
    };
  }

  protected override async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([
      this.#reads[Symbol.asyncDispose](),
      this.#writes[Symbol.asyncDispose](),
      this.#touching,
    ]);
  }

  /**
   * Runs `work` with one of the connections. Repeats it once with a new connection if the answer
   * shows that this one leads to the wrong server, as after a failover behind one name.
   */
  async #run<Value>(
    { pool, connections, signal }: Turn,
    index: number,
    work: (connection: Connection) => Promise<Value>,
  ): Promise<Value> {
    const connection = at(connections, index);
    try {
      return await work(connection);
    } catch (error) {
      if (!(error instanceof ReplyError) || !error.isWrongServer) throw error;
      this.#reads.replaceAll();
      this.#writes.replaceAll();
      // A connection that was just opened already uses the current address of the server.
      if (!connection.isLost || signal.aborted) throw error;
    }
    return await withConnections(pool, signal, async ({ connections }) => {
      const stopWaiting = closeAfterAbort(connections, this.#options.settings.clock, signal);
      try {
        return await work(at(connections, 0));
      } finally {
        stopWaiting();
      }
    });
  }

  async #send(turn: Turn, index: number, key: string, command: RespCommand): Promise<Reply> {
    return await this.#run(turn, index, (connection) => {
      return connection.send(key, command, turn.signal);
    });
  }

  async #touchOnServer(keys: readonly ObjectKey[]): Promise<void> {
    const { signal } = this.#closing;
    await withConnections(this.#reads, signal, async ({ connections }) => {
      // The server's clock is coarse: the last command counts as the most recent use.
      await this.readLimiter.forEach(keys.toReversed(), () => 0, async (key) => {
        const manifestKey = this.#options.names.manifestKeyOf(key);
        // Without the touch, only the eviction order is less exact.
        await at(connections, 0).send(manifestKey, ["EVAL", TOUCH, "1", manifestKey], signal).catch(
          () => {},
        );
      }, signal);
    });
  }
}

function at(connections: readonly Connection[], index: number): Connection {
  const connection = connections[index % connections.length];
  if (connection === undefined) throw new RangeError("There is no connection");
  return connection;
}
