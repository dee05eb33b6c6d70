const CRLF = "\r\n";

/**
 * What a scripted server does about a command: bytes or text to send as they are, `hang` to say
 * nothing, or text to send before it hangs up.
 */
export type ScriptedReply = string | Uint8Array | "hang" | { readonly lastWords: string };

/** A server that says what a test wants. */
export interface ScriptedServer extends AsyncDisposable {
  /** Where it listens, on the loopback address. */
  readonly port: number;
  /** Answers a command; clients ask for what they want to know first, too. */
  answer: (command: readonly string[]) => ScriptedReply;
  /** Sends something that nobody has asked for just now, to all clients. */
  say(words: string): void;
  /** Commands that were asked so far. */
  readonly commands: readonly (readonly string[])[];
}

/** Starts a server that reads commands as RESP has them and answers what `answer` says. */
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
      // The other side hung up.
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

/** A value as a reply. */
export function bulk(bytes: Uint8Array): string {
  return `$${bytes.byteLength}${CRLF}${text(bytes)}${CRLF}`;
}

/** The replies that a client needs before it can be used. */
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

/** The first command of a text, and its length; `undefined` if it is not whole. */
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

/** One character a byte, which is not what decoders take Latin-1 for. */
function text(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
