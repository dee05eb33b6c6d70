/** A proxy to a server on the loopback address that can break connections. */
export class UnsteadyProxy implements AsyncDisposable {
  /** Number of future connections to close when their first bytes arrive. */
  resets = 0;
  /** Number of connections closed that way. */
  resetCount = 0;
  /** Target port of new connections. */
  target: number;
  readonly #listener: Deno.TcpListener;
  readonly #connections = new Set<Deno.TcpConn>();
  readonly #work: Promise<void>[] = [];

  /** Forwards connections to `port`. */
  constructor(port: number) {
    this.target = port;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#work.push(this.#accept());
  }

  /** Port on the loopback address. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Closes all connections. */
  breakAll(): void {
    for (const connection of this.#connections) close(connection);
    this.#connections.clear();
  }

  /** Stops the proxy. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.breakAll();
    await Promise.all(this.#work);
  }

  async #accept(): Promise<void> {
    try {
      for await (const client of this.#listener) this.#work.push(this.#serve(client, this.target));
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #serve(client: Deno.TcpConn, port: number): Promise<void> {
    this.#connections.add(client);
    if (this.resets > 0) {
      this.resets--;
      this.resetCount++;
      await client.read(new Uint8Array(16)).catch(() => null);
      return close(client);
    }
    const server = await Deno.connect({ hostname: "127.0.0.1", port });
    this.#connections.add(server);
    await Promise.allSettled([
      client.readable.pipeTo(server.writable),
      server.readable.pipeTo(client.writable),
    ]);
    close(client);
    close(server);
  }
}

function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // Already closed.
  }
}
