const CRLF = "\r\n";

/**
 * Response of a scripted server to a command: bytes or a string to send verbatim, `hang` to send
 * nothing, or a string to send before closing the connection.
 */
export type ScriptedReply = string | Uint8Array | "hang" | { readonly lastWords: string };

/** A server with responses scripted by a test. */
export interface ScriptedServer extends AsyncDisposable {
  /** Port on the loopback address. */
  readonly port: number;
  /** Responds to a command, including those of the handshake. */
  answer: (command: readonly string[]) => ScriptedReply;
  /** Sends unsolicited data to all clients. */
  say(words: string): void;
  /** Commands received so far. */
  readonly commands: readonly (readonly string[])[];
}

/** Starts a server that parses RESP commands and responds with `answer`. */
export function startScripted(answer: ScriptedServer["answer"]): ScriptedServer {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connections = new Set<Deno.Conn>();
  const commands: string[][] = [];
  const serve = async (connection: Deno.Conn): Promise<void> => {
    connections.add(connection);
    try {
      for await (const command of commandsOf(connection)) {
        commands.push(command);
        const reply = server.answer(command);
        if (reply === "hang") continue;
        const isLast = typeof reply === "object" && "lastWords" in reply;
        const bytes = isLast ? reply.lastWords : reply;
        await writeAll(connection, typeof bytes === "string" ? latin1(bytes) : bytes);
        if (isLast) break;
      }
    } catch {
      // The client closed the connection.
    }
    if (connections.delete(connection)) connection.close();
  };
  const serving = (async () => {
    const served: Promise<void>[] = [];
    for await (const connection of listener) served.push(serve(connection));
    await Promise.all(served);
  })();
  const server: ScriptedServer = {
    port: listener.addr.port,
    answer,
    commands,
    say(words) {
      for (const connection of connections) writeAll(connection, latin1(words)).catch(() => {});
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const connection of connections) connection.close();
      connections.clear();
      await serving;
    },
  };
  return server;
}

/** Encodes a value as a reply. */
export function bulk(bytes: Uint8Array): string {
  return `$${bytes.byteLength}${CRLF}${text(bytes)}${CRLF}`;
}

/** The replies to a client's handshake. */
export function greeting([name = ""]: readonly string[]): string | undefined {
  if (name === "INFO") return bulk(latin1("cluster_enabled:0"));
  return ["CLIENT", "HELLO", "AUTH", "SELECT"].includes(name) ? `+OK${CRLF}` : undefined;
}

async function* commandsOf(connection: Deno.Conn): AsyncIterable<string[]> {
  let rest = "";
  const buffer = new Uint8Array(65_536);
  for (;;) {
    const count = await connection.read(buffer);
    if (count === null) return;
    rest += text(buffer.subarray(0, count));
    for (let parsed = parse(rest); parsed !== undefined; parsed = parse(rest)) {
      rest = rest.slice(parsed.length);
      yield parsed.command;
    }
  }
}

/** Parses the first command and its length; returns `undefined` if it is incomplete. */
function parse(input: string): { command: string[]; length: number } | undefined {
  const [, size] = /^\*(\d+)\r\n/.exec(input) ?? [];
  if (size === undefined) return undefined;
  let at = size.length + 3;
  const command: string[] = [];
  for (let i = 0; i < Number(size); i++) {
    const [, length] = /^\$(\d+)\r\n/.exec(input.slice(at, at + 20)) ?? [];
    if (length === undefined) return undefined;
    at += length.length + 3;
    if (input.length < at + Number(length) + 2) return undefined;
    command.push(input.slice(at, at + Number(length)));
    at += Number(length) + 2;
  }
  return { command, length: at };
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength;) at += await connection.write(bytes.subarray(at));
}

function latin1(input: string): Uint8Array {
  return Uint8Array.from(input, (character) => character.charCodeAt(0));
}

/** Decodes one character per byte; decoders map "latin1" to windows-1252. */
function text(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
