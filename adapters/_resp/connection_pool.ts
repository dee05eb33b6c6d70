import { Connection, type ServerAddress, type ServerSettings } from "./connection.ts";
import { ConnectionError } from "./resp_error.ts";

/**
 * Min time between two replacements of a partly lost cluster connection, or of connections to a
 * wrong server, in milliseconds.
 */
const RENEWAL_MS = 1_000;

interface PoolSlot {
  connection?: Connection;
  opening?: Promise<Connection>;
  openedAt: number;
}

/** Connections that are opened on demand, and replaced when they are lost. */
export class ConnectionPool implements AsyncDisposable {
  readonly #settings: ServerSettings;
  readonly #slots: readonly PoolSlot[];
  /** Masters seen so far; the configured nodes may be gone. */
  #known: readonly ServerAddress[] = [];
  #opened = 0;
  #replacedAt = -Infinity;
  #isClosed = false;

  /**
   * @param size Number of connections.
   */
  constructor(settings: ServerSettings, size: number) {
    this.#settings = settings;
    this.#slots = Array.from({ length: size }, () => ({ openedAt: -Infinity }));
  }

  /** Number of working connections. */
  get openCount(): number {
    return this.#slots.filter(({ connection }) => connection?.isLost === false).length;
  }

  /** Number of connections opened so far. */
  get openedCount(): number {
    return this.#opened;
  }

  /**
   * All connections, for one call; the caller returns them with {@linkcode release}.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If the server is unreachable.
   */
  async take(): Promise<readonly Connection[]> {
    const results = await Promise.allSettled(
      this.#slots.map((slot) => this.#connectionAt(slot)),
    );
    const open = results.flatMap((result) => result.status === "fulfilled" ? result.value : []);
    const [failure] = results.flatMap((result) => result.status === "rejected" ? [result] : []);
    if (open.length === 0) throw failure?.reason ?? new ConnectionError("There is no connection");
    for (const connection of open) connection.retain();
    return open;
  }

  /** Returns connections to the pool. */
  release(connections: readonly Connection[]): void {
    for (const connection of connections) connection.release();
  }

  /**
   * Replaces all connections before their next use, because they lead to a wrong server; its name
   * is resolved again. Rate-limited: does nothing shortly after the last time.
   */
  replaceAll(): void {
    const now = this.#settings.clock.now();
    if (now - this.#replacedAt < RENEWAL_MS) return;
    this.#replacedAt = now;
    for (const slot of this.#slots) {
      slot.connection?.markLost();
      slot.openedAt = -Infinity;
    }
  }

  /** Closes all connections; pending commands are rejected. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const { connection } of this.#slots) connection?.destroy();
    await Promise.allSettled(this.#slots.map(({ opening }) => opening));
    for (const { connection } of this.#slots) connection?.destroy();
  }

  #connectionAt(slot: PoolSlot): Promise<Connection> {
    if (this.#isClosed) return Promise.reject(new ConnectionError("The adapter is closed"));
    const { connection, opening } = slot;
    if (opening !== undefined) return opening;
    if (connection !== undefined) {
      if (!connection.isLost) return Promise.resolve(connection);
      // A partly lost cluster connection is used until it may be replaced again.
      const isYoung = this.#settings.clock.now() - slot.openedAt < RENEWAL_MS;
      if (this.#settings.isCluster && isYoung && connection.masterAddresses.length > 0) {
        return Promise.resolve(connection);
      }
    }
    return slot.opening = this.#open(slot).finally(() => delete slot.opening);
  }

  async #open(slot: PoolSlot): Promise<Connection> {
    const { servers } = this.#settings;
    const nodes = [...servers, ...this.#known].filter((each, i, all) =>
      i === all.findIndex(({ host, port }) => host === each.host && port === each.port)
    );
    const connection = new Connection({ ...this.#settings, servers: nodes });
    // Stored before it is open, so that disposing the pool can close it.
    const before = slot.connection;
    slot.connection = connection;
    before?.replace();
    await connection.open();
    if (this.#isClosed) connection.destroy();
    this.#opened++;
    slot.openedAt = this.#settings.clock.now();
    const masters = connection.masterAddresses;
    if (masters.length > 0) this.#known = masters;
    return connection;
  }
}
