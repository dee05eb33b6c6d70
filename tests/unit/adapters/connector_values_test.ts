import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { delay } from "@std/async";
import connector from "../../../adapters/connector.ts";
import { encodeFileName } from "../../../src/keys/key_codec.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import {
  type AdapterEnvironment,
  AdapterError,
  type AdapterObject,
  ConfigError,
  type L2Adapter,
  ObjectKey,
} from "../../../src/adapter/contract.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testBytes, testKeys } from "../../support/objects.ts";
import { createStorage, Keyv, Keyv4, memoryDriver } from "../../support/stores.ts";

const SIZE = 32 * 1024;
const module = new URL("../../support/connectors.ts", import.meta.url).href;

interface Open extends AsyncDisposable {
  readonly adapter: L2Adapter;
  readonly errors: AdapterError[];
}

async function open(
  object: unknown,
  config: Readonly<Record<string, unknown>> = {},
  environment: Partial<AdapterEnvironment> = {},
): Promise<Open> {
  Reflect.set(globalThis, "kvtierTestConnector", object);
  const errors: AdapterError[] = [];
  const values = parseAdapterConfig(connector, { module, export: "handedOver", ...config });
  const onError = (error: AdapterError): void => void errors.push(error);
  const adapter = await connector.create(values, testEnvironment({ onError, ...environment }));
  return { adapter, errors, [Symbol.asyncDispose]: () => adapter[Symbol.asyncDispose]() };
}

function call(): { signal: AbortSignal } {
  return { signal: new AbortController().signal };
}

async function store(
  { adapter }: Open,
  keys: readonly ObjectKey[],
  byteLength = SIZE,
): Promise<string> {
  const objects = keys.map((key): AdapterObject => {
    return { key, parts: [testBytes(key, byteLength)], byteLength };
  });
  return (await adapter.store(objects, call())).stored.toString();
}

/** Loads objects and returns the outcome as bits; checks the bytes. */
async function load(
  { adapter }: Open,
  keys: readonly ObjectKey[],
  byteLength = SIZE,
): Promise<string> {
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(byteLength)], byteLength }));
  const loaded = await adapter.load(rooms, call());
  for (const { key, parts } of loaded.gather(rooms)) {
    const expected = testBytes(key, byteLength);
    assert(parts[0]?.every((byte, i) => byte === expected[i]));
  }
  return loaded.toString();
}

async function listed({ adapter }: Open): Promise<[string, number][]> {
  const found = await Array.fromAsync(adapter.list?.(call()) ?? []);
  return found.map(({ key, byteLength }): [string, number] => [key.id, byteLength]).sort();
}

function sizesOf(keys: readonly ObjectKey[], byteLength = SIZE): [string, number][] {
  return keys.map(({ id }): [string, number] => [id, byteLength]).sort();
}

/** A map that counts the bytes read from it. */
function countedMap(held = new Map<string, Uint8Array>()) {
  return {
    held,
    readBytes: 0,
    get(name: string) {
      const value = held.get(name);
      this.readBytes += value?.byteLength ?? 0;
      return value;
    },
    set: (name: string, value: Uint8Array) => void held.set(name, value),
    has: (name: string) => held.has(name),
    delete: (name: string) => held.delete(name),
    keys: () => held.keys(),
  };
}

Deno.test("connector: a foreign value under an object's name is a counted miss", async (t) => {
  const values: readonly unknown[] = ["a string", "", { a: 1 }, NaN, 7, true, new Uint8Array(3)];
  for (const value of values) {
    await t.step(Deno.inspect(value), async () => {
      const held = new Map<string, unknown>();
      const [foreign, ...keys] = testKeys(4) as [ObjectKey, ...ObjectKey[]];
      const name = `kvtier-${encodeFileName(foreign)}`;
      held.set(name, value);
      held.set("kvtier-h-" + "0".repeat(64) + ".data", value);
      await using lab = await open(held);
      assertEquals(await store(lab, keys), "111", "others are stored");
      assertEquals((await lab.adapter.usage?.(call()))?.objectCount, 4);
      const bytes = value instanceof Uint8Array ? 3 : 0;
      const expected = [...sizesOf(keys), ...sizesOf([foreign], bytes)].sort();
      assertEquals(await listed(lab), expected, "it is listed, to be forgotten with the objects");
      const faults: unknown[] = [];
      const onLoaded = (index: number, fault?: string): void => void faults.push(index, fault);
      const room = { key: foreign, parts: [new Uint8Array(SIZE)], byteLength: SIZE };
      assertEquals((await lab.adapter.load([room], { ...call(), onLoaded })).popcount(), 0);
      assertEquals(faults, [0, "magic"]);
      assertEquals(await store(lab, [foreign]), "1", "a store replaces it");
      assertEquals(await load(lab, [foreign, ...keys]), "1111");
      held.set(name, value);
      const { deleted } = await lab.adapter.delete?.([foreign], call()) ?? {};
      assertEquals([deleted?.toString(), held.has(name)], ["1", false]);
      assertEquals(lab.errors, []);
    });
  }
});

Deno.test("connector: an object of another length is a counted miss, and stays", async () => {
  const keys = testKeys(4);
  const [stored, ...others] = [SIZE, SIZE + 4, SIZE - 4, SIZE / 2];
  for (const config of [{}, { "max_value_bytes": SIZE / 4 }]) {
    await using lab = await open(countedMap(), config);
    assertEquals(await store(lab, keys, stored), "1111");
    const [shorter, ...same] = keys as [ObjectKey, ...ObjectKey[]];
    assertEquals(await store(lab, [shorter], 100), "1", "as if it was compressed");
    const rooms = [
      { key: shorter, parts: [new Uint8Array(SIZE)], byteLength: SIZE },
      ...same.map((key, i) => {
        const byteLength = others[i] ?? 0;
        return { key, parts: [new Uint8Array(byteLength)], byteLength };
      }),
    ];
    const faults: unknown[] = [];
    const onLoaded = (index: number, fault?: string): void => void faults.push([index, fault]);
    assertEquals((await lab.adapter.load(rooms, { ...call(), onLoaded })).popcount(), 0);
    assertEquals(faults.sort(), keys.map((_, i) => [i, "layout"]));
    assertEquals(await load(lab, same, stored), "111");
    assertEquals(await load(lab, [shorter], 100), "1");
  }
});

Deno.test("connector: a value that cannot be read blocks neither stores nor its removal", async () => {
  const counted = countedMap();
  const [bad, ...keys] = testKeys(4) as [ObjectKey, ...ObjectKey[]];
  const name = `kvtier-${encodeFileName(bad)}`;
  counted.held.set(name, new Uint8Array(9));
  const { get } = counted;
  counted.get = (asked: string) => {
    if (asked === name) throw new Error("it cannot be decoded");
    return get.call(counted, asked);
  };
  await using lab = await open(counted);
  assertEquals(await store(lab, keys), "111");
  assertEquals((await lab.adapter.usage?.(call()))?.objectCount, 4);
  const found: string[] = [];
  const list = async (): Promise<void> => {
    for await (const { key } of lab.adapter.list?.(call()) ?? []) found.push(key.id);
  };
  await assertRejects(list, AdapterError, "it cannot be decoded");
  assertEquals(found.sort(), [bad, ...keys].map(({ id }) => id).sort(), "after all others");
  assertEquals((await lab.adapter.delete?.([bad, ...keys], call()))?.deleted.popcount(), 4);
  assertEquals(counted.held.size, 0);
});

Deno.test("connector: a store that does not keep bytes is refused with the correction", async (t) => {
  const text = new Map<string, string>();
  const own = new Map<string, Uint8Array>();
  const json = {
    get: (name: string) => text.has(name) ? JSON.parse(text.get(name) ?? "") : undefined,
    set: (name: string, value: unknown) => void text.set(name, JSON.stringify(value)),
    has: (name: string) => text.has(name),
    delete: (name: string) => text.delete(name),
    keys: () => text.keys(),
  };
  const stores: Readonly<Record<string, readonly [unknown, RegExp]>> = {
    "JSON": [json, /returns the bytes.*kind: "keyv": received "object"/],
    "text": [
      { ...json, set: (name: string, value: Uint8Array) => void text.set(name, `"${value}"`) },
      /returns the bytes.*received "string"/,
    ],
    "nothing": [{ ...json, get: () => null }, /returns the bytes.*received "nothing"/],
    "no names": [
      Object.assign(Object.create(own), {
        get: (name: string) => own.get(name),
        set: (name: string, value: Uint8Array) => own.set(name, value),
        has: (name: string) => own.has(name),
        delete: (name: string) => own.delete(name),
        keys: () => [...own.keys()].map((name) => `other:${name}`),
      }),
      /a list of the keys/,
    ],
    "never there": [
      {
        get: (name: string) => own.get(name),
        set: (name: string, value: Uint8Array) => own.set(name, value),
        has: () => false,
      },
      /exists\(\) or has\(\)/,
    ],
  };
  for (const [what, [object, message]] of Object.entries(stores)) {
    await t.step(what, async () => {
      assertMatch((await assertRejects(() => open(object), ConfigError)).message, message);
    });
  }
  assertEquals([...text.keys()], [], "nothing is left of the attempts");
});

Deno.test("connector: one that fails at first is checked before it is used", async () => {
  const counted = countedMap();
  let isDown = true;
  const { set } = counted;
  counted.set = (name: string, value: Uint8Array) => {
    if (isDown) throw new Error("maintenance");
    set(name, new Uint8Array(value.byteLength));
  };
  await using lab = await open(counted);
  assertEquals(lab.errors.map(({ message }) => message), [
    "connector: connect failed: maintenance",
  ]);
  const list = () => Array.fromAsync(lab.adapter.list?.(call()) ?? []);
  await assertRejects(list, AdapterError, "unknown whether the connector lists");
  await assertRejects(() => store(lab, testKeys(1)), AdapterError, "maintenance");
  isDown = false;
  await assertRejects(() => store(lab, testKeys(1)), AdapterError, "returns the bytes");
  counted.set = set;
});

/** A Keyv of either version on top of a map. */
const keyvs: Readonly<Record<string, (held: Map<string, string>, namespace?: string) => unknown>> =
  {
    "Keyv 5": (store, namespace) => new Keyv({ store, ...namespace && { namespace } }),
    "Keyv 4": (store, namespace) => new Keyv4({ store, ...namespace && { namespace } }),
  };

for (const namespace of [undefined, "kv", "my:kv", "a:b:c"]) {
  for (const [version, make] of Object.entries(keyvs)) {
    Deno.test(`connector: ${version} with the namespace ${namespace} lists and forgets`, async () => {
      const held = new Map<string, string>();
      await using lab = await open(make(held, namespace));
      assertEquals(lab.adapter.reportStatus?.().kind, "keyv");
      const keys = testKeys(3);
      assertEquals(await store(lab, keys), "111");
      assertEquals(await load(lab, keys), "111");
      assertEquals(await listed(lab), sizesOf(keys));
      await using other = await open(make(held, namespace));
      assertEquals((await other.adapter.usage?.(call()))?.usedBytes, 3 * SIZE);
      // A value that the Keyv cannot decode must not hide the others.
      const [name = ""] = [...held.keys()].filter((name) => name.endsWith(".data"));
      held.set(name, "{");
      await using third = await open(make(held, namespace));
      const found = await third.adapter.lookupAndLock(keys, { prefix: false, ...call() });
      third.adapter.unlock?.(found.gather(keys));
      assertEquals((await load(third, keys)).replaceAll("0", ""), "11");
      assertEquals(third.errors, []);
      assertEquals((await third.adapter.usage?.(call()))?.objectCount, 3);
      const { deleted } = await third.adapter.delete?.(keys, call()) ?? {};
      assert((deleted?.popcount() ?? 0) >= 2);
      assertEquals([...held.keys()], []);
    });
  }
}

Deno.test("connector: sizes are known without reading the values", async (t) => {
  const keys = testKeys(300);
  const long = new ObjectKey({ chunkHash: new Uint8Array(32), model: "m".repeat(250) });
  const all = [...keys, long];
  const counted = countedMap();
  {
    await using lab = await open(counted);
    for (const key of all) assertEquals(await store(lab, [key]), "1");
  }
  await t.step("when it opens", async () => {
    counted.readBytes = 0;
    await using lab = await open(counted);
    const { usedBytes, objectCount } = await lab.adapter.usage?.(call()) ?? {};
    assertEquals([usedBytes, objectCount], [all.length * SIZE, all.length]);
    assertEquals(await listed(lab), sizesOf(all));
    assert(counted.readBytes < 10_000, `${counted.readBytes} bytes were read`);
  });
  await t.step("when it is listed", async () => {
    await using lab = await open(counted, { "max_capacity_gb": 0 });
    counted.readBytes = 0;
    assertEquals(await listed(lab), sizesOf(all));
    const { deleted, bytes } = await lab.adapter.delete?.(keys.slice(0, 2), call()) ?? {};
    assertEquals([deleted?.toString(), bytes], ["11", 2 * SIZE]);
    assert(counted.readBytes < 10_000, `${counted.readBytes} bytes were read`);
    assertEquals(await store(lab, keys.slice(0, 2)), "11");
  });
  await t.step("when others leave to make room", async () => {
    await using lab = await open(counted, {
      "max_capacity_gb": (all.length + 1) * SIZE / 2 ** 30,
      eviction: { "trigger_watermark": 1, "eviction_ratio": 0.1 },
    });
    await lab.adapter.usage?.(call());
    counted.readBytes = 0;
    for (const key of testKeys(300, 1_000)) assertEquals(await store(lab, [key]), "1");
    assert(counted.readBytes < 10_000, `${counted.readBytes} bytes were read`);
    const { usedBytes, objectCount = 0 } = await lab.adapter.usage?.(call()) ?? {};
    const names = [...counted.held.keys()];
    assertEquals(names.filter((name) => name.endsWith(".data")).length, objectCount);
    assertEquals(names.filter((name) => name.endsWith(".size")).length, objectCount);
    assertEquals(usedBytes, objectCount * SIZE);
  });
});

Deno.test("connector: sizes come from sizeOf(), and no side values are written", async () => {
  const counted = countedMap();
  const sized = Object.assign(counted, {
    sizeOf: (name: string) => counted.held.get(name)?.byteLength,
  });
  const keys = testKeys(30);
  {
    await using lab = await open(sized);
    for (const key of keys) assertEquals(await store(lab, [key]), "1");
  }
  assertEquals([...counted.held.keys()].filter((name) => name.endsWith(".size")), []);
  counted.readBytes = 0;
  await using lab = await open(sized);
  assertEquals((await lab.adapter.usage?.(call()))?.usedBytes, keys.length * SIZE);
  assertEquals(await listed(lab), sizesOf(keys));
  assert(counted.readBytes < 10_000, `${counted.readBytes} bytes were read`);
});

Deno.test("connector: objects stored without sizes are read once", async () => {
  const counted = countedMap();
  const keys = testKeys(20);
  {
    await using lab = await open(counted);
    for (const key of keys) assertEquals(await store(lab, [key]), "1");
  }
  const sizes = [...counted.held.keys()].filter((name) => name.endsWith(".size"));
  for (const name of sizes) counted.held.delete(name);
  for (const most of [20 * (SIZE + 1_000), 1_000]) {
    counted.readBytes = 0;
    await using lab = await open(counted);
    assertEquals((await lab.adapter.usage?.(call()))?.usedBytes, 20 * SIZE);
    assert(counted.readBytes < most, `${counted.readBytes} bytes were read`);
  }
  assertEquals(
    [...counted.held.keys()].filter((name) => name.endsWith(".size")).sort(),
    sizes.sort(),
  );
});

Deno.test("connector: sizes in side values are validated", async () => {
  const counted = countedMap();
  const [key, other, gone] = testKeys(3) as [ObjectKey, ObjectKey, ObjectKey];
  const size = ({ digest }: ObjectKey, bytes: number) => `kvtier-s-${digest.toHex()}-${bytes}.size`;
  {
    await using lab = await open(counted);
    assertEquals(await store(lab, [key]) + await store(lab, [other]), "11");
  }
  // Another process stored it with another size; the object of `gone` has expired.
  counted.held.set(size(key, SIZE + 1), new Uint8Array(1));
  counted.held.set(size(gone, SIZE), new Uint8Array(1));
  await using lab = await open(counted);
  assertEquals((await lab.adapter.usage?.(call()))?.usedBytes, 2 * SIZE);
  const names = [...counted.held.keys()].filter((name) => name.endsWith(".size"));
  assertEquals(names.sort(), [size(key, SIZE), size(other, SIZE)].sort());
  // After a larger object replaced it, only its own size remains.
  assertEquals(await store(lab, [key], 2 * SIZE), "1");
  assert(counted.held.has(size(key, 2 * SIZE)) && !counted.held.has(size(key, SIZE)));
  await lab.adapter.delete?.([key, other], call());
  assertEquals(counted.held.size, 0);
});

Deno.test("connector: objects of a longer prefix are not taken for its own", async () => {
  const counted = countedMap();
  const theirs = testKeys(5);
  await using other = await open(counted, { "key_prefix": "kvtier-b-" });
  assertEquals(await store(other, theirs), "1".repeat(5));
  await using lab = await open(counted);
  const { usedBytes, objectCount } = await lab.adapter.usage?.(call()) ?? {};
  assertEquals([usedBytes, objectCount], [0, 0]);
  assertEquals(await listed(lab), []);
  // A key of this adapter that maps to the name of one of their objects.
  const [{ chunkHash, model } = { chunkHash: new Uint8Array(32), model: "" }] = theirs;
  const shared = new ObjectKey({ chunkHash, model: `b-${model}` });
  assertEquals(await load(lab, [shared]), "0");
  assertEquals((await lab.adapter.delete?.([shared], call()))?.deleted.popcount(), 0);
  assertEquals(await load(other, theirs), "1".repeat(5));
  assertEquals(await listed(other), sizesOf(theirs));
});

Deno.test("connector: uses in device memory count, and evictions are reported", async () => {
  const evicted: string[] = [];
  await using lab = await open(countedMap(), {
    "max_capacity_gb": 10.5 * SIZE / 2 ** 30,
    eviction: { "trigger_watermark": 1, "eviction_ratio": 0.5 },
  }, { onEvicted: (keys) => void evicted.push(...keys.map(({ id }) => id)) });
  const keys = testKeys(10);
  for (const key of keys) assertEquals(await store(lab, [key]), "1");
  await delay(2);
  lab.adapter.touch?.(keys.slice(0, 2));
  await delay(2);
  assertEquals(await store(lab, testKeys(1, 50)), "1");
  assertEquals(await load(lab, keys.slice(0, 2)), "11");
  assert(evicted.length >= 5);
  assertEquals(evicted.sort(), keys.slice(2, 2 + evicted.length).map(({ id }) => id).sort());
});

Deno.test("connector: a storage without native sizes gets them from the names", async () => {
  const storage = createStorage({ driver: memoryDriver() });
  const keys = testKeys(5);
  // Closing it would dispose of the storage, which is used again.
  await using first = await open(storage);
  for (const key of keys) assertEquals(await store(first, [key]), "1");
  let reads = 0;
  const getItemRaw = storage.getItemRaw.bind(storage);
  storage.getItemRaw = (name: string, options) => {
    if (name.endsWith(".data")) reads++;
    return getItemRaw(name, options);
  };
  await using lab = await open(storage);
  assertEquals((await lab.adapter.usage?.(call()))?.usedBytes, 5 * SIZE);
  assertEquals(lab.errors, []);
  assertEquals(reads, 0);
});
