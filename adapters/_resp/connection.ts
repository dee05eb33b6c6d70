import { Buffer } from "node:buffer";
import type * as Redis from "@redis/client";
import type { Clock } from "../../src/adapter/contract.ts";
import { followSignal } from "./follow_signal.ts";
import { ConnectionError, ReplyError } from "./resp_error.ts";

/** Answer of a server other than an error. */
export type Reply = Buffer | string | number | null | readonly Reply[];
/** A command with its arguments. */
export type RespCommand = readonly (string | Buffer)[];

/** Address of a server. */
export interface ServerAddress {
  /** Host name or IP address. */
  readonly host: string;
  readonly port: number;
}

/** Connection settings. */
export interface ServerSettings {
  readonly library: typeof Redis;
  /** One server, or some nodes of a cluster. */
  readonly servers: readonly ServerAddress[];
  /** Whether the servers are nodes of a cluster. */
  readonly isCluster: boolean;
  /** User name; `undefined` for the default user. */
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** Number of the database. */
  readonly database: number;
  /** TLS settings; `ca` replaces the certificates of the system. `undefined`: no TLS. */
  readonly tls: { readonly ca: string | undefined } | undefined;
  /** Max time to open a connection, in milliseconds. */
  readonly connectTimeoutMs: number;
  readonly clock: Clock;
}

/** One server, or one master of a cluster. */
export interface ServerNode {
  /** Sends a command; `signal` cancels it if it has not been written yet. */
  send(command: RespCommand, signal?: AbortSignal): Promise<Reply>;
}

/** A connection without traffic for this long is closed, in milliseconds. */
const SILENCE_MS = 60_000;

interface ClientLike {
  readonly isOpen: boolean;
  on(event: string, listener: (error: unknown) => void): unknown;
  connect(): Promise<unknown>;
  destroy(): void;
  ref(): void;
  unref(): void;
  sendCommand(command: RespCommand, options: unknown): Promise<Reply>;
}

interface MasterLike {
  readonly host: string;
  readonly port: number;
  readonly client?: ClientLike | undefined;
}

interface ClusterLike extends Omit<ClientLike, "sendCommand" | "ref" | "unref"> {
  readonly masters: readonly MasterLike[];
  nodeClient(node: unknown): Promise<ClientLike>;
  sendCommand(
    key: string,
    isReadOnly: boolean,
    command: RespCommand,
    options: unknown,
  ): Promise<Reply>;
}

/**
 * A connection to a server, or one to each master of a cluster. A lost connection is not reopened;
 * the pool opens another.
 */
export class Connection {
  readonly #client: ClientLike | undefined;
  readonly #cluster: ClusterLike | undefined;
  readonly #library: typeof Redis;
  readonly #connectTimeoutMs: number;
  readonly #clock: Clock;
  #lastError: unknown;
  #isLost = false;
  #waiting = 0;
  #silentSince = 0;
  #users = 0;
  #isReplaced = false;

  constructor(settings: ServerSettings) {
    const { library, servers, isCluster, database, connectTimeoutMs } = settings;
    this.#library = library;
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#clock = settings.clock;
    const commandOptions = {
      typeMapping: { [library.RESP_TYPES.BLOB_STRING]: Buffer },
      timeout: 0,
    };
    const common = {
      RESP: 2,
      maintNotifications: "disabled",
      ...(settings.username === undefined ? {} : { username: settings.username }),
      ...(settings.password === undefined ? {} : { password: settings.password }),
    };
    const ca = settings.tls?.ca;
    const socket = {
      connectTimeout: connectTimeoutMs,
      socketTimeout: SILENCE_MS,
      reconnectStrategy: false,
      ...(settings.tls === undefined ? {} : { tls: true, ...(ca === undefined ? {} : { ca }) }),
    };
    if (isCluster) {
      // Discovery asks one node after the other and cannot be aborted: a silent node must leave
      // time for the next.
      const share = Math.ceil(connectTimeoutMs / (servers.length + 1));
      const rootNodes = servers.map((server) => ({
        socket: { ...server, connectTimeout: share, socketTimeout: share },
      }));
      const defaults = { ...common, socket, commandOptions };
      const options = { RESP: 2, rootNodes, defaults, commandOptions, minimizeConnections: true };
      this.#cluster = library.createCluster(options as never) as unknown as ClusterLike;
    } else {
      const options = { ...common, socket: { ...socket, ...servers[0] }, database, commandOptions };
      this.#client = library.createClient(options as never) as unknown as ClientLike;
    }
    for (const event of ["error", "node-error"]) {
      this.#anyClient.on(event, (error) => {
        this.#lastError = error;
        this.#isLost = true;
      });
    }
  }

  /** Whether the connection, or one to a master, has failed and must be replaced. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Time since the last answer while commands are pending, in milliseconds. */
  get silentMs(): number {
    return this.#waiting === 0 ? 0 : this.#clock.now() - this.#silentSince;
  }

  /** The masters of the cluster known so far. */
  get masterAddresses(): readonly ServerAddress[] {
    return this.#cluster?.masters.map(({ host, port }) => ({ host, port })) ?? [];
  }

  /**
   * Connects and authenticates.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If the server is unreachable or does not answer.
   */
  async open(): Promise<void> {
    let isLate = false;
    const cancel = this.#clock.schedule(() => {
      isLate = true;
      this.destroy();
    }, this.#connectTimeoutMs);
    try {
      await this.#anyClient.connect();
      if (isLate) throw new Error("late");
      if (this.#waiting === 0) this.#keepAlive(false);
    } catch (error) {
      this.destroy();
      const cause = error instanceof Error && error.name === "Error" ? this.#lastError : undefined;
      throw isLate ? timedOut() : this.#describe(cause ?? error);
    } finally {
      cancel();
    }
  }

  /**
   * Sends a command to the master that owns `key`; `signal` cancels it if it has not been written
   * yet.
   */
  async send(key: string, command: RespCommand, signal?: AbortSignal): Promise<Reply> {
    return await this.#settle(
      signal,
      (options) =>
        this.#cluster?.sendCommand(key, false, command, options) ??
          this.#client?.sendCommand(command, options),
    );
  }

  /** The masters, to send commands to each of them. */
  async nodes(): Promise<readonly ServerNode[]> {
    const cluster = this.#cluster;
    if (cluster === undefined) {
      return [{ send: (command, signal) => this.send("", command, signal) }];
    }
    const clients = cluster.masters.map((master) =>
      this.#settle(undefined, () => cluster.nodeClient(master))
    );
    return (await Promise.all(clients)).map((client) => ({
      send: (command, signal) =>
        this.#settle(signal, (options) => client.sendCommand(command, options)),
    }));
  }

  /** Registers a call that uses the connection. */
  retain(): void {
    this.#users++;
  }

  /** Ends the use by a call. */
  release(): void {
    this.#users--;
    this.#destroyIfUseless();
  }

  /** Marks the connection as replaced: new calls use another one. */
  replace(): void {
    this.#isReplaced = true;
    this.#destroyIfUseless();
  }

  /** Marks the connection as lost; calls in progress may finish. */
  markLost(): void {
    this.#isLost = true;
    this.#destroyIfUseless();
  }

  /** Closes the connection. Pending commands are rejected, and unwritten ones are never sent. */
  destroy(): void {
    this.#isLost = true;
    try {
      if (this.#anyClient.isOpen) this.#anyClient.destroy();
    } catch {
      // Closed concurrently.
    }
  }

  /** A partly lost cluster connection serves the remaining masters until it is replaced. */
  #destroyIfUseless(): void {
    const isOfUse = this.#cluster !== undefined && !this.#isReplaced;
    if (this.#isLost && this.#users === 0 && !isOfUse) this.destroy();
  }

  get #anyClient(): Pick<ClientLike, "isOpen" | "on" | "connect" | "destroy"> {
    const any = this.#client ?? this.#cluster;
    if (any === undefined) throw new TypeError("A connection has a client");
    return any;
  }

  /** Whether the sockets keep the process alive: only while commands are pending. */
  #keepAlive(isKept: boolean): void {
    const clients = this.#cluster?.masters.map(({ client }) => client) ?? [this.#client];
    for (const client of clients) {
      if (isKept) client?.ref();
      else client?.unref();
    }
  }

  async #settle<Value>(
    signal: AbortSignal | undefined,
    ask: (options: { readonly abortSignal?: AbortSignal }) => Promise<Value> | undefined,
  ): Promise<Value> {
    using following = signal && followSignal(signal);
    if (this.#waiting++ === 0) {
      this.#silentSince = this.#clock.now();
      this.#keepAlive(true);
    }
    try {
      const options = following === undefined ? {} : { abortSignal: following.signal };
      const value = await ask(options) as Value;
      this.#silentSince = this.#clock.now();
      return value;
    } catch (error) {
      const described = this.#describe(error);
      if (described instanceof ReplyError) this.#silentSince = this.#clock.now();
      // Whatever the cause, a new connection may work.
      if (described instanceof ConnectionError) this.#isLost = true;
      throw described;
    } finally {
      if (--this.#waiting === 0) this.#keepAlive(false);
    }
  }

  #describe(error: unknown): Error {
    const { ErrorReply, AbortError } = this.#library;
    if (error instanceof AbortError || error instanceof ReplyError) return error;
    return error instanceof ErrorReply ? new ReplyError(error.message) : new ConnectionError(error);
  }
}

function timedOut(): ConnectionError {
  const error = Object.assign(new Error("The server did not answer in time"), {
    code: "ETIMEDOUT",
  });
  return new ConnectionError(error);
}
