import { delay } from "@std/async";
import { join } from "@std/path";
import { tempDirectory } from "./temp_directory.ts";

/** Ports below the ephemeral range. A cluster node also uses the port 10,000 above its own. */
const FIRST_PORT = 14_000;
const PORT_COUNT = 8_000;
/** Timeout for the start of a server, in milliseconds. */
const START_MS = 10_000;
const STOP_MS = 3_000;

let nextPort = FIRST_PORT + Math.floor(Math.random() * PORT_COUNT);

/** A server process of one test. */
export interface RedisServer extends AsyncDisposable {
  /** Port on the loopback address. */
  readonly port: number;
  /** Runs a command and returns its output as `redis-cli` prints it. */
  command(...args: string[]): Promise<string>;
  /** Sends a signal to the process. */
  signal(name: Deno.Signal): void;
  /** Kills the process and waits until it has ended. */
  kill(): Promise<void>;
  /** Starts the process again on the same port. */
  start(): Promise<void>;
}

/** Reason why no server is available; `undefined` if there is one. */
export async function redisObstacle(): Promise<string | undefined> {
  try {
    await new Deno.Command("redis-server", { args: ["--version"], stdout: "null" }).output();
    return undefined;
  } catch {
    if (Deno.env.get("KVTIER_REQUIRE_SERVERS")) throw new Error("redis-server has to be installed");
    return "redis-server is not installed";
  }
}

/** Registers a test that needs a server; without one, it reports that it did not run. */
export function redisTest(
  name: string,
  run: (t: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test(name, async (t) => {
    const obstacle = await redisObstacle();
    if (obstacle === undefined) await run(t);
    else await t.step(`${obstacle}: not run`, () => {});
  });
}

/** Starts a server without persistence; `options` are lines of its configuration. */
export async function startRedis(options: readonly string[] = []): Promise<RedisServer> {
  const directory = await tempDirectory();
  const port = freePort();
  const file = join(directory.path, "redis.conf");
  const lines = [
    `port ${port}`,
    "bind 127.0.0.1",
    `dir ${directory.path}`,
    'save ""',
    "appendonly no",
    "daemonize no",
    ...options,
  ];
  await Deno.writeTextFile(file, lines.join("\n"));
  let process: Deno.ChildProcess | undefined;

  const command = async (...args: string[]): Promise<string> => {
    const [auth] = options.filter((line) => line.startsWith("requirepass "));
    const password = auth === undefined ? [] : ["-a", auth.slice(12), "--no-auth-warning"];
    const all = ["-p", String(port), ...password, ...args];
    const { stdout } = await new Deno.Command("redis-cli", { args: all, stderr: "null" }).output();
    return new TextDecoder().decode(stdout).trim();
  };
  const kill = async (): Promise<void> => {
    const ending = process;
    process = undefined;
    if (ending !== undefined) await end(ending, "SIGKILL");
  };
  const start = async (): Promise<void> => {
    await kill();
    process = new Deno.Command("redis-server", {
      args: [file],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    await waitUntil(async () => /PONG|NOAUTH|LOADING|MASTERDOWN/.test(await command("ping")));
  };
  const dispose = async (): Promise<void> => {
    const ending = process;
    process = undefined;
    if (ending !== undefined) {
      // A stopped process handles SIGTERM only after SIGCONT.
      const timer = setTimeout(() => void end(ending, "SIGKILL"), STOP_MS);
      await end(ending, "SIGCONT", "SIGTERM");
      clearTimeout(timer);
    }
    await directory[Symbol.asyncDispose]();
  };
  try {
    await start();
  } catch (error) {
    await kill();
    await dispose();
    throw error;
  }
  const signal = (name: Deno.Signal): void => process?.kill(name);
  return { port, command, signal, kill, start, [Symbol.asyncDispose]: dispose };
}

/** A cluster of masters that share the slots. */
export interface RedisCluster extends AsyncDisposable {
  /** Its nodes. */
  readonly nodes: readonly RedisServer[];
}

/** Starts servers and forms a cluster. */
export async function startRedisCluster(count = 3): Promise<RedisCluster> {
  await using stack = new AsyncDisposableStack();
  const options = ["cluster-enabled yes", "cluster-node-timeout 2000"];
  const whole = ["cluster-require-full-coverage no"];
  const nodes: RedisServer[] = [];
  for (let i = 0; i < count; i++) {
    nodes.push(stack.use(await startRedis([...options, ...whole])));
  }
  for (const [i, node] of nodes.entries()) {
    const [from, to] = [i, i + 1].map((n) => Math.floor(n * 16_384 / count));
    await node.command("CLUSTER", "ADDSLOTSRANGE", String(from), String((to ?? 0) - 1));
    if (i > 0) await nodes[0]?.command("CLUSTER", "MEET", "127.0.0.1", String(node.port));
  }
  await waitUntil(async () => {
    const infos = await Promise.all(nodes.map((node) => node.command("CLUSTER", "INFO")));
    return infos.every((info) =>
      info.includes("cluster_state:ok") && info.includes("cluster_slots_ok:16384")
    );
  });
  const moved = stack.move();
  return { nodes, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

/** Waits for a condition that another process fulfils. */
export async function waitUntil(
  isTrue: () => boolean | Promise<boolean>,
  limitMs = START_MS,
): Promise<void> {
  const end = performance.now() + limitMs;
  while (!await isTrue()) {
    if (performance.now() > end) throw new Error(`Not true after ${limitMs} ms: ${isTrue}`);
    await delay(10);
  }
}

/** Sends signals to a process unless it has ended, and waits until it has ended. */
async function end(process: Deno.ChildProcess, ...signals: readonly Deno.Signal[]): Promise<void> {
  try {
    for (const signal of signals) process.kill(signal);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  await process.status;
}

function freePort(): number {
  for (let tries = 0; tries < PORT_COUNT; tries++) {
    const port = FIRST_PORT + (nextPort++ - FIRST_PORT) % PORT_COUNT;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      Deno.listen({ hostname: "127.0.0.1", port: port + 10_000 }).close();
      return port;
    } catch {
      // The port is taken.
    }
  }
  throw new Error("There is no free port");
}
