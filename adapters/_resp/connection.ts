import { Buffer } from "node:buffer";
import type * as Redis from "@redis/client";
import type { Clock } from "../../src/l2/adapter.ts";
import { followSignal } from "./follow_signal.ts";
import { ConnectionError, ReplyError } from "./resp_error.ts";

/** What a server answers, an error apart. */
export type Reply = Buffer | string | number | null | readonly Reply[];
/** A command with its arguments. */
export type Command = readonly (string | Buffer)[];

/** Where a server listens. */
export interface ServerAddress {
  /** Name or address. */
  readonly host: string;
  /** TCP port. */
  readonly port: number;
}

/** How servers are reached. */
export interface ServerSettings {
  /** The client library. */
  readonly library: typeof Redis;
  /** A server, or some nodes of a cluster. */
  readonly servers: readonly ServerAddress[];
  /** Whether they are nodes of a cluster. */
  readonly isCluster: boolean;
  /** Who this is; left out, the server asks nobody. */
  readonly username: string | undefined;
  /** The secret. */
  readonly password: string | undefined;
  /** Number of the database. */
  readonly database: number;
  /** TLS, with the certificates to trust beside those of the system. */
  readonly tls: { readonly ca: string | undefined } | undefined;
  /** Most milliseconds until a connection works. */
  readonly connectTimeoutMs: number;
  /** Source of time. */
  readonly clock: Clock;
}

/** One server, or one master of a cluster. */
export interface ServerNode {
  /** Sends a command; `signal` takes it back as long as it is not written. */
  send(command: Command, signal?: AbortSignal): Promise<Reply>;
}

/** A connection on which nothing happens for so long is given up, in milliseconds. */
const SILENCE_MS = 60_000;

interface ClientLike {
  readonly isOpen: boolean;
  on(event: string, listener: (error: unknown) => void): unknown;
  connect(): Promise<unknown>;
  destroy(): void;
  ref(): void;
  unref(): void;
  sendCommand(command: Command, options: unknown): Promise<Reply>;
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
    command: Command,
    options: unknown,
  ): Promise<Reply>;
}

/**
 * A connection to a server, or one to each master of a cluster. When it is lost, it stays lost:
 * who needs one opens another.
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

  /** Not open yet. */
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
      // Discovery asks one node after the other, and cannot be broken off from outside: one that
      // says nothing must leave time for the next.
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
      this.#any.on(event, (error) => {
        this.#lastError = error;
        this.#isLost = true;
      });
    }
  }

  /** Whether it, or that to one master, failed: then another one is needed. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** For how long nothing was answered although somebody waits, in milliseconds. */
  get silentMs(): number {
    return this.#waiting === 0 ? 0 : this.#clock.now() - this.#silentSince;
  }

  /** The masters that it knows. */
  get masterAddresses(): readonly ServerAddress[] {
    return this.#cluster?.masters.map(({ host, port }) => ({ host, port })) ?? [];
  }

  /**
   * Connects, and says who this is.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If it cannot be reached, or says nothing.
   */
  async open(): Promise<void> {
    let isLate = false;
    const cancel = this.#clock.schedule(() => {
      isLate = true;
      this.destroy();
    }, this.#connectTimeoutMs);
    try {
      await this.#any.connect();
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

  /** Sends a command to the master that has `key`; `signal` takes it back while it is unwritten. */
  async send(key: string, command: Command, signal?: AbortSignal): Promise<Reply> {
    return await this.#settle(
      signal,
      (options) =>
        this.#cluster?.sendCommand(key, false, command, options) ??
          this.#client?.sendCommand(command, options),
    );
  }

  /** All masters, each to be asked by itself. */
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

  /** Notes that a call uses it. */
  retain(): void {
    this.#users++;
  }

  /** Notes that a call is done with it. */
  release(): void {
    this.#users--;
    this.#destroyIfUseless();
  }

  /** Notes that new calls use another one. */
  replace(): void {
    this.#isReplaced = true;
    this.#destroyIfUseless();
  }

  /** Counts as lost from now on; the calls that use it may end. */
  distrust(): void {
    this.#isLost = true;
    this.#destroyIfUseless();
  }

  /** Breaks it off: what waits for an answer is rejected, what is not written never will be. */
  destroy(): void {
    this.#isLost = true;
    try {
      if (this.#any.isOpen) this.#any.destroy();
    } catch {
      // It was closed in between.
    }
  }

  /** What is left of a cluster serves until it is replaced. */
  #destroyIfUseless(): void {
    const isOfUse = this.#cluster !== undefined && !this.#isReplaced;
    if (this.#isLost && this.#users === 0 && !isOfUse) this.destroy();
  }

  get #any(): Pick<ClientLike, "isOpen" | "on" | "connect" | "destroy"> {
    const any = this.#client ?? this.#cluster;
    if (any === undefined) throw new TypeError("A connection has a client");
    return any;
  }

  /** Whether its sockets keep the process alive: only while somebody waits for an answer. */
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
      // Whatever it is, another connection may do better.
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
