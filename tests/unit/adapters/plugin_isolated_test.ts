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
  const environment = testEnvironment({ clock, onError: (error) => void errors.push(error) });
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

Deno.test("plugin, isolated: an answer that was not asked for kills the process", async () => {
  const answer = `const json = new TextEncoder().encode('{"id":99,"value":{"done":[0]}}');
    const frame = new Uint8Array(8 + json.length);
    new DataView(frame.buffer).setUint32(0, json.length, true);
    frame.set(json, 8);
    Deno.stdout.writeSync(frame);
    await new Promise(() => {});`;
  await assertDies(answer, /killed: it answered what was not asked/);
});

Deno.test("plugin, isolated: bytes that were not asked for kill the process", async () => {
  const answer = `const frame = new Uint8Array(8 + 8);
    new DataView(frame.buffer).setUint32(0, 8, true);
    new DataView(frame.buffer).setUint32(4, 4e9, true);
    frame.set(new TextEncoder().encode('{"id":2}'), 8);
    Deno.stdout.writeSync(frame);
    await new Promise(() => {});`;
  await assertDies(answer, /killed: 4000000000 bytes instead of 0/);
});

Deno.test("plugin, isolated: the JavaScript heap is limited", async () => {
  await assertDies(
    "const all = []; for (;;) all.push(new Array(1e5).fill(Math.random()));",
    /ended by/,
  );
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

Deno.test("plugin, isolated: an idle process ends with the program, and keeps none alive", async () => {
  await using directory = await directoryOf({ "plugin.ts": source("") });
  const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const program = `import plugin from ${url("../../../adapters/plugin.ts")};
import { parseAdapterConfig } from ${url("../../../src/adapter/config.ts")};
import { testEnvironment } from ${url("../../support/adapters.ts")};
const module = ${JSON.stringify(join(directory.path, "plugin.ts"))};
const values = parseAdapterConfig(plugin, { module, isolate: true });
const adapter = await plugin.create(values, testEnvironment());
await adapter.lookupAndLock([], { prefix: true, signal: new AbortController().signal });
console.log(adapter.reportStatus().pid);`;
  const script = join(directory.path, "host.js");
  await Deno.writeTextFile(script, program);
  const config = new URL("../../../deno.json", import.meta.url).pathname;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", `--config=${config}`, script],
    stderr: "inherit",
  }).output();
  assertEquals(code, 0);
  const pid = Number(new TextDecoder().decode(stdout));
  assert(pid > 0);
  // It ends when it sees the end of its input.
  while (isRunning(pid)) await new Promise((resolve) => setTimeout(resolve, 1));
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
