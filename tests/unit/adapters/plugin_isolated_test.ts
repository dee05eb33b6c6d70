import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { join } from "@std/path";
import plugin from "../../../adapters/plugin.ts";
import { FrameReader, FrameWriter } from "../../../adapters/_plugin/frames.ts";
import { type AdapterError, ConfigError, type L2AdapterModule } from "../../../mod.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import type { L2Adapter } from "../../../src/adapter/contract.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { ManualClock } from "../../../src/testing/mod.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { directoryOf } from "../../support/module_files.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { seededRandom } from "../../support/random.ts";

const contract = new URL("../../../src/adapter/contract.ts", import.meta.url).href;
const call = { signal: new AbortController().signal };

/** A plugin that works, except that `lookup` runs at the start of each lookup. */
function source(lookup: string, top = ""): string {
  return `import { Bitmap, concatParts, defineL2Adapter, fillParts } from "${contract}";
${top}
const held = new Map();
export default defineL2Adapter({
  type: "shelf",
  summary: "Objects on a shelf.",
  config: { boards: { type: "number", integer: true, minimum: 1, default: 1, help: "Boards." } },
  create: () => ({
    capabilities: { durable: true },
    store(objects) {
      for (const { key, parts } of objects) held.set(key.id, concatParts(parts));
      return Promise.resolve({ stored: new Bitmap(objects.length, objects.length), bytes: 0 });
    },
    lookupAndLock: async (keys) => {
      ${lookup}
      return Bitmap.from(keys, ({ id }) => held.has(id));
    },
    load: async (objects) => Bitmap.from(objects, ({ key, parts }) => fillParts(parts, held.get(key.id))),
    reportStatus: () => ({ pid: Deno.pid }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }),
});
`;
}

interface Opened extends AsyncDisposable {
  readonly adapter: L2Adapter;
  readonly errors: AdapterError[];
}

/** Opens an isolated plugin with the given source. */
async function open(
  text: string,
  config: Readonly<Record<string, unknown>> = {},
  clock = systemClock,
): Promise<Opened> {
  const directory = await directoryOf({ "plugin.ts": text });
  const errors: AdapterError[] = [];
  const onError = (error: AdapterError): void => void errors.push(error);
  const environment = testEnvironment({ clock, onError, onEvicted: () => {} });
  const module = join(directory.path, "plugin.ts");
  try {
    const values = parseAdapterConfig(plugin, { module, isolate: true, ...config });
    const adapter = await (plugin as L2AdapterModule).create(values, environment);
    return {
      adapter,
      errors,
      async [Symbol.asyncDispose]() {
        await adapter[Symbol.asyncDispose]();
        await directory[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await directory[Symbol.asyncDispose]();
    throw error;
  }
}

/** Makes a lookup that the plugin answers as `lookup` says. */
async function lookUp(lookup: string): Promise<void> {
  await using opened = await open(source(lookup));
  await opened.adapter.lookupAndLock(testKeys(1), { ...call, prefix: true });
}

/** Makes a guarded lookup that the plugin cannot survive, and checks that only the plugin dies. */
async function assertDies(lookup: string, message: RegExp): Promise<void> {
  await using opened = await open(source(lookup));
  const { adapter, errors } = opened;
  const timeouts = { ...DEFAULT_ADAPTER_TIMEOUTS, lookupMs: 200 };
  const guard = new AdapterGuard(adapter, { id: 0, type: "plugin", clock: systemClock, timeouts });
  const { done } = await guard.lookup(testKeys(1), { prefix: true });
  assertEquals(done.popcount(), 0);
  while (errors.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals(errors.map(({ operation }) => operation), ["process"]);
  assertMatch(errors[0]?.message ?? "", message);
  assertMatch(guard.reportStatus().problems.join(), message);
  await assertRejects(() => adapter.load([testObject(testKey(0))], call), Error, "process");
  await guard.close();
}

Deno.test("plugin, isolated: a loop that never ends is killed after the deadline", async () => {
  await assertDies("for (;;);", /killed: it did not react for 1000 ms/);
});

Deno.test("plugin, isolated: a process that exits is a dead adapter", async () => {
  await assertDies("Deno.exit(7);", /ended with exit code 7/);
});

Deno.test("plugin, isolated: a process that floods its output is killed", async () => {
  const flood =
    "const bytes = new Uint8Array(65536).fill(65); for (;;) Deno.stdout.writeSync(bytes);";
  await assertDies(flood, /killed: The bytes are no message/);
});

/** Code of a plugin that writes a frame by itself. The first lookup has the id 2. */
function frame(json: string, bodyBytes = 0): string {
  return `const json = new TextEncoder().encode(${json});
    const frame = new Uint8Array(8 + json.length);
    new DataView(frame.buffer).setUint32(0, json.length, true);
    new DataView(frame.buffer).setUint32(4, ${bodyBytes}, true);
    frame.set(json, 8);
    Deno.stdout.writeSync(frame);
    await new Promise(() => {});`;
}

Deno.test("plugin, isolated: an answer that was not asked for kills the process", async () => {
  await assertDies(frame(`'{"id":99,"value":{"done":[0]}}'`), /it answered what was not asked/);
});

Deno.test("plugin, isolated: bytes that were not asked for kill the process", async () => {
  await assertDies(frame(`'{"id":2}'`, 4e9), /killed: 4000000000 bytes instead of 0/);
});

Deno.test("plugin, isolated: an answer that is too long to parse kills the process", async () => {
  await assertDies(frame(`'{"id":2,"value":"'.padEnd(5e6) + '"}'`), /the bytes are no message/i);
});

Deno.test("plugin, isolated: a call is rejected if its answer has invalid reports", async () => {
  for (const reports of ["null", "{}", `{"errors":[],"evicted":["?"]}`]) {
    const answer = frame(`'{"id":2,"value":{"done":[]},"reports":${reports}}'`);
    await assertRejects(() => lookUp(answer), Error, "was killed");
  }
});

Deno.test("plugin, isolated: whatever a plugin throws, the call rejects with a short message", async () => {
  const none = "no message";
  const thrown: readonly (readonly [lookup: string, message: string])[] = [
    ["throw Object.create(null);", "[object Object]"],
    ["throw undefined;", "undefined"],
    [frame(`'{"id":2,"error":null}'`), none],
    [frame(`'{"id":2,"error":{"message":{},"code":7,"config":7}}'`), none],
    [frame(`'{"id":2,"error":{"message":"' + "x".repeat(1e6) + '"}}'`), `${"x".repeat(1_000)}…`],
  ];
  for (const [lookup, message] of thrown) {
    const error = await assertRejects(() => lookUp(lookup), Error);
    assertEquals(error.message, message);
  }
});

Deno.test("plugin, isolated: a status that is too long or too deep is not kept", async () => {
  for (const status of [`'"' + "x".repeat(1e6) + '"'`, `"[".repeat(1e4) + "]".repeat(1e4)`]) {
    const reports = `{"errors":[],"evicted":[],"status":{"__proto__":{},"a":' + ${status} + '}}`;
    await using opened = await open(
      source(frame(`'{"id":2,"value":{"done":[]},"reports":${reports}}'`)),
    );
    await opened.adapter.lookupAndLock(testKeys(1), { ...call, prefix: true });
    assertEquals(opened.adapter.reportStatus?.()["status"], "too large");
  }
});

Deno.test("plugin, isolated: a listing that claims too many objects fails", async () => {
  const list = `async *list() { ${frame(`'{"id":3,"value":{"objects":[],"keyless":1e15}}'`)} },`;
  await using opened = await open(source("").replace("reportStatus:", `${list} reportStatus:`));
  const objects = opened.adapter.list?.({ ...call, onKeyless: () => {} });
  await assertRejects(() => Array.fromAsync(objects ?? []), TypeError, "at most 1000 objects");
});

Deno.test("plugin, isolated: objects left out of a listing are counted in parts", async () => {
  const list = `async *list({ onKeyless }) { for (let i = 0; i < 2500; i++) onKeyless(); },`;
  await using opened = await open(source("").replace("reportStatus:", `${list} reportStatus:`));
  let keyless = 0;
  const objects = opened.adapter.list?.({ ...call, onKeyless: () => void keyless++ });
  assertEquals(await Array.fromAsync(objects ?? []), []);
  assertEquals(keyless, 2500);
});

Deno.test("plugin, isolated: errors of uses and of the status are reported", async () => {
  const faulty = `touch() { throw new Error("no"); }, reportStatus() { throw new Error("no"); },`;
  await using opened = await open(source("").replace(/reportStatus: .*/, faulty));
  const { adapter, errors } = opened;
  const none = { ...call, prefix: true };
  adapter.touch?.(testKeys(1));
  for (let i = 0; i < 2; i++) await adapter.lookupAndLock([], none);
  assertEquals(errors.map(({ operation }) => operation).sort(), ["status", "touch"]);
});

Deno.test("plugin, isolated: a pause of the host is not the fault of the process", async () => {
  await using opened = await open(source("await new Promise((r) => setTimeout(r, 200));"));
  const { adapter, errors } = opened;
  const controller = new AbortController();
  const { signal } = controller;
  const lookup = adapter.lookupAndLock(testKeys(1), { signal, prefix: true });
  controller.abort();
  await Promise.resolve();
  for (const until = performance.now() + 1_100; performance.now() < until;);
  assertEquals((await lookup).popcount(), 0);
  assertEquals(errors, []);
});

Deno.test("plugin, isolated: the JavaScript heap is limited", async () => {
  const eat = "const all = []; for (;;) all.push(new Array(1e5).fill(Math.random()));";
  await assertRejects(() => lookUp(eat), Error, "ended by");
});

Deno.test({
  name: "plugin, isolated: memory outside the heap is limited",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const eat = `const all = [];
    try { for (;;) all.push(new Uint8Array(2 ** 24)); }
    catch { throw new Error("ate " + all.length * 16); }`;
    await using opened = await open(source(eat), { "memory_limit_mb": 128 });
    const lookup = opened.adapter.lookupAndLock(testKeys(1), { ...call, prefix: true });
    const { message } = await assertRejects(() => lookup, Error);
    const mib = Number(/ate (\d+)/.exec(message)?.[1]);
    assert(mib < 128 + 640, message);
  },
});

Deno.test("plugin, isolated: has no permission that the configuration does not name", async () => {
  const read =
    `throw new Error(await Deno.readTextFile("/etc/hostname").then(() => "read", (e) => e.name));`;
  const messageWith = async (config: Readonly<Record<string, unknown>>): Promise<string> => {
    await using opened = await open(source(read), config);
    const lookup = opened.adapter.lookupAndLock(testKeys(1), { ...call, prefix: true });
    return (await assertRejects(() => lookup, Error)).message;
  };
  assertEquals(await messageWith({}), "NotCapable");
  assertEquals(await messageWith({ permissions: { read: ["/etc/hostname"] } }), "read");
});

Deno.test("plugin, isolated: imports from JSR and from named hosts only", async () => {
  const hosts = ["jsr.io:443", "esm.sh:443", "localhost:80"];
  const query = `const states = ${JSON.stringify(hosts)}.map((host) =>
      Deno.permissions.querySync({ name: "import", host }).state);
    throw new Error(states.map((state) => state === "granted").join());`;
  const statesWith = async (permissions: Readonly<Record<string, unknown>>): Promise<string> => {
    await using opened = await open(source(query), { permissions });
    const lookup = opened.adapter.lookupAndLock(testKeys(1), { ...call, prefix: true });
    return (await assertRejects(() => lookup, Error)).message;
  };
  assertEquals(await statesWith({}), "true,false,false");
  assertEquals(await statesWith({ import: ["localhost:80"] }), "true,false,true");
});

Deno.test("plugin, isolated: a mistake in the configuration fails at start", async () => {
  const mistakes: readonly (readonly [config: object, key: string, received: unknown])[] = [
    [{ permissions: { reads: ["/tmp"] } }, "permissions", "reads"],
    [{ permissions: { read: "/tmp" } }, "permissions.read", "/tmp"],
    [{ params: { boards: 0 } }, "params.boards", "0"],
    [{ params: { bords: 1 } }, "params.bords", "bords"],
  ];
  for (const [config, key, received] of mistakes) {
    const error = await assertRejects(() => open(source(""), { ...config }));
    assertInstanceOf(error, ConfigError);
    assertEquals([error.key, error.received], [key, received]);
  }
});

Deno.test("plugin, isolated: a module that cannot be loaded fails at start", async () => {
  for (const text of ["throw new Error('no');", "export default 1;", "Deno.exit(0);"]) {
    const error = await assertRejects(() => open(text));
    assertInstanceOf(error, ConfigError);
    assertEquals([error.key, error.expected], ["module", "a usable adapter module"]);
  }
});

Deno.test("plugin, isolated: a module that never finishes loading is killed", async () => {
  const clock = new ManualClock();
  const opening = open("for (;;);", {}, clock);
  const rejected = assertRejects(() => opening, ConfigError, "Not open within 25000 ms");
  while (clock.pendingTimers === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await clock.advance(25_000);
  await rejected;
});

Deno.test({
  name: "plugin, isolated: starting a process needs permission",
  permissions: { read: true, write: true, run: false, env: true, sys: true },
  async fn() {
    const error = await assertRejects(() => open(source("")), ConfigError);
    assertStringIncludes(error.message, "--allow-run");
  },
});

Deno.test({
  name: "plugin, isolated: starting a shell needs permission",
  permissions: { read: true, write: true, run: [Deno.execPath()], env: true, sys: true },
  ignore: Deno.build.os !== "linux",
  async fn() {
    const error = await assertRejects(() => open(source("")), ConfigError);
    assertStringIncludes(error.message, "--allow-run=/bin/sh");
  },
});

/** Runs a program that opens an isolated plugin as `adapter`; returns what it writes. */
async function runHost(plugin: string, program: string): Promise<string> {
  await using directory = await directoryOf({ "plugin.ts": plugin });
  const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const script = join(directory.path, "host.js");
  await Deno.writeTextFile(
    script,
    `import plugin from ${url("../../../adapters/plugin.ts")};
import { parseAdapterConfig } from ${url("../../../src/adapter/config.ts")};
import { testEnvironment } from ${url("../../support/adapters.ts")};
import { testKeys } from ${url("../../support/objects.ts")};
const module = ${JSON.stringify(join(directory.path, "plugin.ts"))};
const values = parseAdapterConfig(plugin, { module, isolate: true });
const adapter = await plugin.create(values, testEnvironment());
const call = { prefix: true, signal: new AbortController().signal };
${program}`,
  );
  const config = new URL("../../../deno.json", import.meta.url).pathname;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", `--config=${config}`, script],
    stderr: "inherit",
  }).output();
  return new TextDecoder().decode(stdout);
}

Deno.test("plugin, isolated: an idle process ends with the program, and keeps none alive", async () => {
  const program = `await adapter.lookupAndLock([], call);
console.log(adapter.reportStatus().pid);`;
  const pid = Number(await runHost(source(""), program));
  assert(pid > 0);
  // It ends when it sees the end of its input.
  while (isRunning(pid)) await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test({
  name: "plugin, isolated: a process that loops ends with the program",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const program = `await adapter.lookupAndLock([], call);
console.log(adapter.reportStatus().pid);
void adapter.lookupAndLock(testKeys(1), call);
setTimeout(() => Deno.kill(Deno.pid, "SIGKILL"), 100);`;
    const pid = Number(await runHost(source("if (keys.length > 0) for (;;);"), program));
    assert(pid > 0);
    while (isRunning(pid)) await new Promise((resolve) => setTimeout(resolve, 1));
  },
});

function isRunning(pid: number): boolean {
  try {
    Deno.kill(pid, "SIGCONT");
    return true;
  } catch {
    return false;
  }
}

Deno.test("plugin frames: any frames, in chunks of any size, are read as written", async () => {
  const random = seededRandom(1);
  const whole = (below: number): number => random.below(below);
  for (let round = 0; round < 50; round++) {
    const frames = Array.from({ length: 1 + whole(5) }, (_, id) => ({
      header: { id, text: "x".repeat(whole(300)) },
      parts: Array.from({ length: whole(4) }, () => new Uint8Array(whole(200)).fill(whole(256))),
    }));
    const bytes: number[] = [];
    const writer = new FrameWriter(
      new WritableStream({ write: (chunk) => void bytes.push(...chunk) }),
    );
    await Promise.all(frames.map(({ header, parts }) => writer.write(header, parts)));
    const reader = new FrameReader(
      new ReadableStream({
        pull(controller) {
          if (bytes.length === 0) return controller.close();
          controller.enqueue(Uint8Array.from(bytes.splice(0, 1 + whole(64))));
        },
      }),
    );
    for (const { header, parts } of frames) {
      const head = await reader.next();
      assertEquals(head?.header, header);
      const body = new Uint8Array(head?.bodyBytes ?? 0);
      assert(await reader.read(body));
      assertEquals([...body], parts.flatMap((part) => [...part]));
    }
    assertEquals(await reader.next(), undefined);
  }
});
