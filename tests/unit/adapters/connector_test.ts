import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import connector from "../../../adapters/connector.ts";
import { map } from "../../support/connectors.ts";
import type {
  AdapterError,
  AdapterObject,
  L2Adapter,
  ObjectKey,
} from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testBytes, testKeys } from "../../support/objects.ts";

const SIZE = 5000;
const module = new URL("../../support/connectors.ts", import.meta.url).href;

/** Passes a store to the test module of the next adapter. */
const handOver = globalThis as { kvtierTestConnector?: unknown };

interface Open extends AsyncDisposable {
  readonly adapter: L2Adapter;
  readonly errors: AdapterError[];
}

async function open(
  object: unknown,
  config: Readonly<Record<string, unknown>> = {},
): Promise<Open> {
  handOver.kvtierTestConnector = object;
  const errors: AdapterError[] = [];
  const values = parseAdapterConfig(connector, { module, export: "handedOver", ...config });
  const environment = testEnvironment({ onError: (error) => void errors.push(error) });
  const adapter = await connector.create(values, environment);
  return { adapter, errors, [Symbol.asyncDispose]: () => adapter[Symbol.asyncDispose]() };
}

function objectOf(key: ObjectKey, byteLength = SIZE): AdapterObject {
  const bytes = testBytes(key, byteLength);
  return { key, parts: [bytes.slice(0, 3001), bytes.slice(3001)], byteLength };
}

function roomOf(key: ObjectKey, byteLength = SIZE): AdapterObject {
  return { key, parts: [new Uint8Array(1234), new Uint8Array(byteLength - 1234)], byteLength };
}

function call(): { signal: AbortSignal } {
  return { signal: new AbortController().signal };
}

/** Loads objects and returns the outcome as bits; checks the bytes. */
async function loaded(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const rooms = keys.map((key) => roomOf(key));
  const bits = await adapter.load(rooms, call());
  for (const { key, parts } of bits.gather(rooms)) {
    assertEquals(parts.flatMap((part) => [...part]), [...testBytes(key, SIZE)]);
  }
  return bits.toString();
}

Deno.test("connector: an object above max_value_bytes is split", async () => {
  const held = map();
  await using lab = await open(held, { "max_value_bytes": 1024 });
  const keys = testKeys(2);
  const { stored, bytes } = await lab.adapter.store(keys.map((key) => objectOf(key)), call());
  assertEquals([stored.toString(), bytes], ["11", 2 * SIZE]);
  assertEquals(held.size, 2 * (1 + Math.ceil(SIZE / 1024)));
  assertEquals(await loaded(lab.adapter, keys), "11");

  await lab.adapter.store([objectOf(testKeys(1)[0] as ObjectKey)], call());
  assertEquals(held.size, 12, "the values of the replaced object are gone");
  const { deleted } = await lab.adapter.delete?.(keys, call()) ?? {};
  assertEquals([deleted?.toString(), held.size], ["11", 0]);
});

Deno.test("connector: an object with a missing or truncated part is a miss", async () => {
  const held = map();
  await using lab = await open(held, { "max_value_bytes": 1024 });
  const keys = testKeys(3);
  await lab.adapter.store(keys.map((key) => objectOf(key)), call());
  const parts = [...held.keys()].filter((name) => name.endsWith(".part"));
  const [first = "", second = ""] = [parts[0], parts[7]];
  held.delete(first);
  held.set(second, (held.get(second) ?? new Uint8Array()).subarray(1));
  assertEquals(await loaded(lab.adapter, keys), "001");
});

Deno.test("connector: a store that fails half-way publishes and leaves nothing", async () => {
  const held = map();
  let countdown = 3;
  const failing = {
    get: (name: string) => held.get(name),
    has: (name: string) => held.has(name),
    delete: (name: string) => held.delete(name),
    set: (name: string, value: Uint8Array) => {
      if (countdown-- === 0) throw new Error("disk on fire");
      held.set(name, value);
    },
  };
  await using lab = await open(failing, { "max_value_bytes": 1024 });
  const keys = testKeys(1);
  const error = await assertRejects(() =>
    lab.adapter.store(keys.map((key) => objectOf(key)), call())
  );
  assertMatch(String(error), /disk on fire/);
  assertEquals((await lab.adapter.lookupAndLock(keys, { prefix: false, ...call() })).popcount(), 0);
  assertEquals(held.size, 0);
});

Deno.test("connector: an error affects only its key, not the batch", async () => {
  const held = map();
  const keys = testKeys(4);
  const bad = keys[2]?.chunkHashHex ?? "";
  const moody = {
    has: (name: string) => held.has(name),
    get: (name: string) => {
      if (name.includes(bad)) throw new Error("no");
      return held.get(name);
    },
    set: (name: string, value: Uint8Array) => !name.includes(bad) && held.set(name, value),
    setMany: () => {
      throw new Error("no batches today");
    },
  };
  await using lab = await open(moody);
  const { stored } = await lab.adapter.store(keys.map((key) => objectOf(key)), call());
  assertEquals(stored.toString(), "1101");
  assertEquals(await loaded(lab.adapter, keys), "1101");
  assertEquals(lab.errors.map(({ operation }) => operation), ["store", "load"]);
});

Deno.test("connector: answers that are no bytes, or too short, are misses", async () => {
  for (const answer of [new Uint8Array(3), "text", 7, [1, 2], null]) {
    const held = map();
    await using lab = await open({
      get: (name: string) => name.endsWith(".data") ? answer : held.get(name),
      set: (name: string, value: Uint8Array) => void held.set(name, value),
      has: () => true,
    });
    const rooms = [roomOf(testKeys(1)[0] as ObjectKey)];
    const bits = await lab.adapter.load(rooms, call()).catch(() => undefined);
    assertEquals(bits?.popcount() ?? 0, 0);
    assert(rooms.every(({ parts }) => parts.every((part) => part.every((byte) => byte === 0))));
  }
});

Deno.test("connector: one that modifies its arguments has no effect on the cache", async () => {
  const held = map();
  const cruel = {
    get: (name: string) => held.get(name)?.slice(),
    has: (name: string) => held.has(name),
    set: (name: string, value: Uint8Array) => {
      held.set(name, value.slice());
      value.fill(0xff);
    },
  };
  await using lab = await open(cruel);
  const keys = testKeys(2);
  const objects = keys.map((key) => objectOf(key));
  await lab.adapter.store(objects, call());
  for (const { key, parts } of objects) {
    assertEquals(parts.flatMap((part) => [...part]), [...testBytes(key, SIZE)]);
  }
  assertEquals(await loaded(lab.adapter, keys), "11");
});

Deno.test("connector: an aborted call does not wait for a hanging connector", async () => {
  const held = map();
  const never = () => new Promise(() => {});
  const hanging = {
    get: (name: string): unknown => held.get(name),
    set: (name: string, value: Uint8Array): unknown => held.set(name, value),
    has: (name: string): unknown => held.has(name),
    delete: (name: string): unknown => held.delete(name),
  };
  await using lab = await open(hanging);
  Object.assign(hanging, { get: never, set: never, has: never, delete: never });
  const keys = testKeys(2);
  const abort = new AbortController();
  const { signal } = abort;
  const calls = [
    lab.adapter.store(keys.map((key) => objectOf(key)), { signal }),
    lab.adapter.lookupAndLock(keys, { prefix: true, signal }),
    lab.adapter.load(keys.map((key) => roomOf(key)), { signal }),
    lab.adapter.delete?.(keys, { signal }),
  ];
  abort.abort();
  const [stored, found, read, deleted] = await Promise.all(calls);
  assertEquals([stored, deleted].map((result) => result && "bytes" in result && result.bytes), [
    0,
    0,
  ]);
  for (const bits of [found, read]) assert(bits !== undefined && "popcount" in bits);
});

Deno.test("connector: objects stay within the capacity, the oldest are evicted first", async () => {
  const held = map();
  const capacity = 10.5 * SIZE / 2 ** 30;
  await using lab = await open(held, {
    "max_capacity_gb": capacity,
    eviction: { "trigger_watermark": 1, "eviction_ratio": 0.5 },
  });
  const keys = testKeys(12);
  for (const key of keys) await lab.adapter.store([objectOf(key)], call());
  const there = await lab.adapter.lookupAndLock(keys, { prefix: false, ...call() });
  assertEquals(there.toString().endsWith("1"), true);
  assertEquals(there.toString().startsWith("0"), true);
  const { usedBytes, objectCount } = await lab.adapter.usage?.(call()) ?? {};
  assertEquals([usedBytes, objectCount], [held.size * SIZE, held.size]);
  assert(held.size * SIZE <= capacity * 2 ** 30);
});

Deno.test("connector: leftovers of an interrupted store are removed after an hour", async () => {
  const held = map();
  const id = (begunAt: number) => begunAt.toString(16).padStart(12, "0") + "ab".repeat(10);
  const old = `kvtier-p-${id(Date.now() - 3_700_000)}-0.part`;
  const young = `kvtier-p-${id(Date.now() - 60_000)}-0.part`;
  for (const name of [old, young, "another program's"]) held.set(name, new Uint8Array(9));
  await using lab = await open(held);
  await lab.adapter.usage?.(call());
  assertEquals([...held.keys()], [young, "another program's"]);
});

Deno.test("connector: old parts that an object needs stay", async () => {
  const held = map();
  const keys = testKeys(1);
  const { now } = Date;
  {
    await using lab = await open(held, { "max_value_bytes": 1024 });
    Date.now = () => now() - 7_200_000;
    try {
      await lab.adapter.store(keys.map((key) => objectOf(key)), call());
    } finally {
      Date.now = now;
    }
  }
  await using lab = await open(held, { "max_value_bytes": 1024 });
  await lab.adapter.usage?.(call());
  assertEquals(await loaded(lab.adapter, keys), "1");
});

Deno.test("connector: a value under the name of another object is not that object", async () => {
  const held = map();
  await using lab = await open(held);
  const keys = testKeys(2);
  await lab.adapter.store([objectOf(keys[0] as ObjectKey)], call());
  const [[name = "", value = new Uint8Array()] = []] = held;
  const [first = "", second = ""] = keys.map(({ chunkHashHex }) => chunkHashHex);
  held.set(name.replace(first, second), value);
  assertEquals(await loaded(lab.adapter, keys), "10");
});

const mistakes: readonly (readonly [string, Readonly<Record<string, unknown>>, RegExp])[] = [
  ["an address of another kind", { module: "https://example.com/x.ts" }, /module: expected a path/],
  ["a module that is not there", { module: "./nowhere.ts" }, /module: expected a module that can/],
  ["an export that is not there", { export: "nowhere" }, /export: expected one of .*map/],
  ["an object without the methods", { export: "nothing" }, /set, exists or has/],
  ["a wrong kind", { export: "map", kind: "unstorage" }, /getItemRaw/],
  [
    "a capacity that cannot be kept",
    { export: "batches", "max_capacity_gb": 1 },
    /max_capacity_gb/,
  ],
];
for (const [what, config, message] of mistakes) {
  Deno.test(`connector: ${what} is refused`, async () => {
    const create = async () => {
      const values = parseAdapterConfig(connector, { module, ...config });
      return await connector.create(values, testEnvironment());
    };
    assertMatch((await assertRejects(create, ConfigError)).message, message);
  });
}

Deno.test("connector: an error of the factory is passed on", async () => {
  const values = parseAdapterConfig(connector, { module, export: "broken" });
  await assertRejects(
    async () => await connector.create(values, testEnvironment()),
    Error,
    "no such database",
  );
});
