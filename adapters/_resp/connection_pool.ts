import { Connection, type ServerAddress, type ServerSettings } from "./connection.ts";
import { ConnectionError } from "./resp_error.ts";

/**
 * A lost connection to a part of a cluster, and connections to a wrong server, are replaced at most
 * so often, in milliseconds.
 */
const RENEWAL_MS = 1_000;

interface Place {
  connection?: Connection;
  opening?: Promise<Connection>;
  openedAt: number;
}

/** Connections that are opened when they are needed, and replaced when they are lost. */
export class ConnectionPool implements AsyncDisposable {
  readonly #settings: ServerSettings;
  readonly #places: readonly Place[];
  /** Nodes of the cluster that were met: those of the configuration may be gone. */
  #known: readonly ServerAddress[] = [];
  #opened = 0;
  #distrustedAt = -Infinity;
  #isClosed = false;

  /** Room for `size` connections. */
  constructor(settings: ServerSettings, size: number) {
    this.#settings = settings;
    this.#places = Array.from({ length: size }, () => ({ openedAt: -Infinity }));
  }

  /** Connections that work. */
  get openCount(): number {
    return this.#places.filter(({ connection }) => connection?.isLost === false).length;
  }

  /** Connections that were opened so far. */
  get openedCount(): number {
    return this.#opened;
  }

  /**
   * All connections, for one call, which gives them back with {@linkcode release}.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If it cannot be reached.
   */
  async take(): Promise<readonly Connection[]> {
    const results = await Promise.allSettled(
      this.#places.map((place) => this.#connectionAt(place)),
    );
    const open = results.flatMap((result) => result.status === "fulfilled" ? result.value : []);
    const [failure] = results.flatMap((result) => result.status === "rejected" ? [result] : []);
    if (open.length === 0) throw failure?.reason ?? new ConnectionError("There is no connection");
    for (const connection of open) connection.retain();
    return open;
  }

  /** Gives connections back. */
  release(connections: readonly Connection[]): void {
    for (const connection of connections) connection.release();
  }

  /**
   * Replaces all connections before they are used again, because they lead to a wrong server: the
   * name of the server is resolved anew then. Does nothing if that was done shortly before.
   */
  distrust(): void {
    const now = this.#settings.clock.now();
    if (now - this.#distrustedAt < RENEWAL_MS) return;
    this.#distrustedAt = now;
    for (const place of this.#places) {
      place.connection?.distrust();
      place.openedAt = -Infinity;
    }
  }

  /** Closes everything; what waits for an answer is rejected. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const { connection } of this.#places) connection?.destroy();
    await Promise.allSettled(this.#places.map(({ opening }) => opening));
    for (const { connection } of this.#places) connection?.destroy();
  }

  #connectionAt(place: Place): Promise<Connection> {
    if (this.#isClosed) return Promise.reject(new ConnectionError("The adapter is closed"));
    const { connection, opening } = place;
    if (opening !== undefined) return opening;
    if (connection !== undefined) {
      if (!connection.isLost) return Promise.resolve(connection);
      // What is left of a cluster goes on working until it is asked anew.
      const isYoung = this.#settings.clock.now() - place.openedAt < RENEWAL_MS;
      if (this.#settings.isCluster && isYoung && connection.masterAddresses.length > 0) {
        return Promise.resolve(connection);
      }
    }
    return place.opening = this.#open(place).finally(() => delete place.opening);
  }

  async #open(place: Place): Promise<Connection> {
    const { servers } = this.#settings;
    const nodes = [...servers, ...this.#known].filter((each, i, all) =>
      i === all.findIndex(({ host, port }) => host === each.host && port === each.port)
    );
    const connection = new Connection({ ...this.#settings, servers: nodes });
    // Closing the pool has to reach it while it is being opened.
    const before = place.connection;
    place.connection = connection;
    before?.replace();
    await connection.open();
    if (this.#isClosed) connection.destroy();
    this.#opened++;
    place.openedAt = this.#settings.clock.now();
    const masters = connection.masterAddresses;
    if (masters.length > 0) this.#known = masters;
    return connection;
  }
}
