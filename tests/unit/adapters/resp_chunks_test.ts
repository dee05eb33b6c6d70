import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import * as library from "@redis/client";
import { Connection } from "../../../adapters/_resp/connection.ts";
import { RespObjectNames } from "../../../adapters/_resp/object_names.ts";
import { RespObjectWriter } from "../../../adapters/_resp/object_writer.ts";
import { AdapterError, encodeFileName, ObjectKey } from "../../../src/adapter/contract.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { type RedisServer, redisTest, startRedis } from "../../support/redis_server.ts";
import {
  call,
  loadBits,
  lookupBits,
  openResp,
  respObject,
  respRoom,
  storeBits,
} from "../../support/resp_adapter.ts";

const SIZE = 10_500;
const config = { "chunk_bytes": 1000 };

/** Names of all matching keys on a server, sorted. */
async function keysOn(server: RedisServer, pattern = "*"): Promise<string[]> {
  const text = await server.command("KEYS", pattern);
  return text === "" ? [] : text.split("\n").sort();
}

redisTest("an object has as many values as its size requires", async (t) => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, { "chunk_bytes": 1000, "key_prefix": "p*:" });
  for (const [size, values] of [[0, 1], [1, 1], [1000, 1], [1001, 2], [2000, 3], [10_500, 11]]) {
    await t.step(`${size} bytes: ${values}`, async () => {
      assertEquals(await storeBits(adapter, testKeys(1), size as number), "1");
      assertEquals((await keysOn(server)).length, values);
      assertEquals((await keysOn(server, "p\\*:*")).length, values);
      assertEquals(await loadBits(adapter, testKeys(1), size as number), "1");
    });
  }
});

redisTest(
  "a large object is split so that hardly anything is left for the value with its head",
  async (t) => {
    await using server = await startRedis();
    const KIB = 1024;
    for (
      const [chunkBytes, size, sizes] of [
        [10_000, 24_096, [72 + 4_096, 10_000, 10_000]],
        [10_000, 25_000, [72, 10_000, 10_000, 5_000]],
        [2 ** 20, 256 * KIB, [72 + 256 * KIB]],
        [2 ** 20, 256 * KIB + 1, [72, 256 * KIB + 1]],
        [2 ** 20, 2 ** 20 + 4096, [72 + 4096, 2 ** 20]],
      ] as const
    ) {
      await t.step(`${size} bytes, ${chunkBytes} a value`, async () => {
        await server.command("FLUSHALL");
        await using adapter = await openResp(server.port, { "chunk_bytes": chunkBytes });
        assertEquals(await storeBits(adapter, testKeys(1), size), "1");
        const names = await keysOn(server);
        const lengths = await Promise.all(names.map((name) => server.command("STRLEN", name)));
        assertEquals(lengths.map(Number).sort((a, b) => a - b), [...sizes].sort((a, b) => a - b));
        assertEquals(await loadBits(adapter, testKeys(1), size), "1");
      });
    }
  },
);

redisTest("replacing an object removes its values", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, config);
  for (const size of [SIZE, SIZE, 3000, SIZE]) {
    assertEquals(await storeBits(adapter, testKeys(1), size), "1");
    assertEquals((await keysOn(server)).length, Math.floor(size / 1000) + 1);
  }
  assertEquals(await storeBits(adapter, testKeys(1), 500), "1");
  const [head = "", ...chunks] = (await keysOn(server)).sort((a, b) => a.length - b.length);
  assertEquals(await server.command("PTTL", head), "-1");
  for (const chunk of chunks) assertGreater(Number(await server.command("PTTL", chunk)), 0);
  assertEquals(await adapter.delete?.(testKeys(1), call()).then(({ bytes }) => bytes), 500);
  await using other = await openResp(server.port, config);
  assertEquals(await storeBits(other, testKeys(1), SIZE), "1");
  assertEquals((await other.delete?.(testKeys(1), call()))?.bytes, SIZE);
  assertEquals(await keysOn(server), chunks.sort());
});

redisTest("concurrent stores of a key by several processes leave the values of one", async () => {
  await using server = await startRedis();
  await using one = await openResp(server.port, config);
  await using two = await openResp(server.port, { "chunk_bytes": 900 });
  for (let round = 0; round < 5; round++) {
    const stores = [one, two, one, two].map((adapter) => storeBits(adapter, testKeys(2), SIZE));
    assertEquals(await Promise.all(stores), ["11", "11", "11", "11"]);
    assertEquals(await loadBits(one, testKeys(2), SIZE), "11");
  }
  assert([22, 23, 24].includes((await keysOn(server)).length), "values of one store an object");
});

redisTest(
  "an object with a missing value is a miss, is removed, and can be stored again",
  async () => {
    await using server = await startRedis();
    await using adapter = await openResp(server.port, config);
    const keys = testKeys(3);
    assertEquals(await storeBits(adapter, keys, SIZE), "111");
    const chunks = (await keysOn(server)).filter((name) => name.endsWith("}") === false);
    const hash = (key: ObjectKey) => key.chunkHashHex;
    const lost = chunks.find((name) => name.includes(hash(testKey(1))) && name.endsWith(":7")) ??
      "";
    assertEquals(await server.command("DEL", lost), "1");
    assertEquals(await lookupBits(adapter, keys), "111", "no lookup before");
    assertEquals(await loadBits(adapter, keys, SIZE), "101");
    assertEquals(await lookupBits(adapter, keys), "101");
    assertEquals((await keysOn(server)).length, 22, "nothing is left of it");
    assertEquals(await storeBits(adapter, [testKey(1)], SIZE), "1");
    assertEquals(await loadBits(adapter, keys, SIZE), "111");
  },
);

redisTest("values of another length, and foreign values, are misses", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, config);
  assertEquals(await storeBits(adapter, testKeys(2), SIZE), "11");
  const [chunk = ""] = (await keysOn(server)).filter((name) => name.endsWith(":3"));
  await server.command("SET", chunk, "short");
  assertEquals((await loadBits(adapter, testKeys(2), SIZE)).split("").sort().join(""), "01");
  for (const head of (await keysOn(server)).filter((name) => name.endsWith("}"))) {
    await server.command("SET", head, `KVR1 but not really${"?".repeat(100)}`);
  }
  assertEquals(await loadBits(adapter, testKeys(2), SIZE), "00");
  assertEquals(await storeBits(adapter, testKeys(2), SIZE), "11");
  assertEquals(await loadBits(adapter, testKeys(2), SIZE), "11");
  // A chunk count that would block the server and the reader.
  const head = (await keysOn(server)).find((name) => name.endsWith("}")) ?? "";
  const fields = `ffffffff00000000${SIZE.toString(16).padStart(16, "0")}0000`;
  await server.command("SET", head, `KVR1${fields}${"0".repeat(32)}${"x".repeat(SIZE)}`);
  assertEquals((await loadBits(adapter, testKeys(2), SIZE)).split("").sort().join(""), "01");
  await adapter.delete?.(testKeys(2), call());
  assertEquals(await storeBits(adapter, testKeys(2), SIZE), "11");
  for (const name of await keysOn(server)) {
    await server.command("DEL", name);
    await server.command("RPUSH", name, "a list");
  }
  assertEquals(await loadBits(adapter, testKeys(2), SIZE), "00");
  assertEquals(await storeBits(adapter, testKeys(2), SIZE), "11");
  assertEquals(await loadBits(adapter, testKeys(2), SIZE), "11");
});

redisTest("unpublished chunks are removed, or expire if that fails too", async () => {
  await using server = await startRedis();
  for (const [forbidden, left] of [["-eval", 0], ["-del", 10]] as const) {
    // Only the publishing script writes a manifest.
    await server.command("ACL", "SETUSER", "default", forbidden);
    const errors: AdapterError[] = [];
    await using writer = await openResp(server.port, config, {
      onError: (error) => errors.push(error),
    });
    assertEquals(await storeBits(writer, testKeys(1), SIZE), "0");
    assertEquals(errors.map(({ operation }) => operation), ["store"]);
    assertEquals(await lookupBits(writer, testKeys(1)), "0");
    const names = await keysOn(server);
    assertEquals(names.length, left);
    for (const name of names) assertGreater(Number(await server.command("PTTL", name)), 0);
  }
});

redisTest("an object that lost a chunk is not published", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, config);
  assertEquals(await storeBits(adapter, testKeys(1), SIZE), "1");
  const [head = ""] = (await keysOn(server)).filter((name) => name.endsWith("}"));
  const { PUBLISH } = await import("../../../adapters/_resp/scripts.ts");
  const before = await keysOn(server);
  const args = ["another head", "0", "0", `${head}nothing:`, "2"];
  assertEquals(await server.command("EVAL", PUBLISH, "1", head, ...args), "0");
  assertEquals(await keysOn(server), before);
  assertEquals(await loadBits(adapter, testKeys(1), SIZE), "1");
});

redisTest("objects expire before their chunks", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, { ...config, "ttl_seconds": 100 });
  assertEquals(await storeBits(adapter, [testKey(0)], SIZE), "1");
  assertEquals(await storeBits(adapter, [testKey(1)], 100), "1");
  for (const name of await keysOn(server)) {
    const ttlMs = Number(await server.command("PTTL", name));
    const [least, most] = name.endsWith("}") ? [50_000, 100_000] : [110_000, 160_000];
    assert(ttlMs > least && ttlMs <= most, `${name}: ${ttlMs}`);
  }
});

redisTest("parts of the caller are not joined", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port);
  const { parts, ...rest } = respObject(testKey(0), 5_000_000);
  const { stored } = await adapter.store([{ parts, ...rest }], call());
  assertEquals(stored.toString(), "1");
  assertEquals(await loadBits(adapter, testKeys(1), 5_000_000), "1");
  // Chunks fill memory blocks exactly, with the server's overhead: nothing is wasted.
  const [chunk = ""] = (await keysOn(server)).filter((name) => name.endsWith(":0"));
  const usage = Number(await server.command("MEMORY", "USAGE", chunk));
  assert(usage < 1.01 * 2 ** 20, `a chunk takes ${usage} bytes`);
});

redisTest("lookups of 10,000 keys that differ only in their salt find nothing", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, config);
  const stored = Array.from({ length: 20 }, (_, n) => testKey(n, { cacheSalt: "tenant" }));
  assertEquals(await storeBits(adapter, stored, 2000), "1".repeat(20));
  const probes = Array.from({ length: 10_000 }, (_, n) => {
    const cacheSalt = ["", "tenan", "Tenant", "tenant "][n] ?? `tenant${n}`;
    return testKey(n % 20, { cacheSalt });
  });
  const found = await adapter.lookupAndLock(probes, { ...call(), prefix: false });
  assertEquals(found.popcount(), 0);
  assertEquals(await loadBits(adapter, probes.slice(0, 2000), 2000), "0".repeat(2000));
  assertEquals(await loadBits(adapter, stored, 2000), "1".repeat(20));
});

redisTest("an object that loses a chunk before it is published leaves nothing", async () => {
  await using server = await startRedis();
  const connection = new Connection({
    library,
    servers: [{ host: "127.0.0.1", port: server.port }],
    isCluster: false,
    username: undefined,
    password: undefined,
    database: 0,
    tls: undefined,
    connectTimeoutMs: 5_000,
    clock: systemClock,
  });
  await connection.open();
  try {
    // A full server may evict keys with an expiry.
    const evicting = Object.assign(Object.create(connection), {
      async send(...[key, command, signal]: Parameters<Connection["send"]>) {
        if (command[0] === "EVAL") {
          const names = await keysOn(server, "*:3");
          assertEquals(await server.command("DEL", ...names), "1");
        }
        return await connection.send(key, command, signal);
      },
    });
    for (const ttlMs of [0, 50_000]) {
      const writer = new RespObjectWriter({
        names: new RespObjectNames("p:"),
        chunkBytes: 1000,
        ttlMs,
      });
      const { signal } = call();
      assertEquals(await writer.write(evicting, respObject(testKey(1), SIZE), signal), false);
      assertEquals(await keysOn(server), []);
    }
  } finally {
    connection.destroy();
  }
});

redisTest("an object stays, with its expiry, if its replacement is refused", async (t) => {
  for (const ttl of [0, 1000]) {
    await t.step(`time to live ${ttl}`, async () => {
      await using server = await startRedis();
      const errors: AdapterError[] = [];
      await using adapter = await openResp(server.port, { ...config, "ttl_seconds": ttl }, {
        onError: (error) => errors.push(error),
      });
      assertEquals(await storeBits(adapter, testKeys(1), SIZE), "1");
      await server.command("CONFIG", "SET", "maxmemory", "1");
      assertEquals(await storeBits(adapter, testKeys(1), 900), "0");
      assertEquals(errors.map(({ message }) => message.includes("OOM")), [true]);
      const times = await Promise.all(
        (await keysOn(server)).map((name) => server.command("PTTL", name)),
      );
      assertEquals(times.length, 11);
      for (const time of times.map(Number)) {
        if (ttl === 0) assertEquals(time, -1);
        else assertGreater(time, 900_000);
      }
      assertEquals(await loadBits(adapter, testKeys(1), SIZE), "1");
    });
  }
});

redisTest(
  "values of other people under an object's name are counted, listed and removed",
  async () => {
    await using server = await startRedis();
    await using adapter = await openResp(server.port, { "max_capacity_gb": 1 });
    const keys = testKeys(4);
    const [list = "", set = "", text = ""] = keys.map((key) => `kvtier:{${encodeFileName(key)}}`);
    await server.command("RPUSH", list, "a");
    await server.command("SADD", set, "a");
    await server.command("SET", text, "a string");
    assertEquals(await storeBits(adapter, keys.slice(3), SIZE), "1");
    const listed = await Array.fromAsync(adapter.list?.(call()) ?? []);
    assertEquals(listed.map(({ key }) => key.id).sort(), keys.map(({ id }) => id).sort());
    const faults: unknown[] = [];
    const rooms = keys.map((key) => respRoom(key, SIZE));
    const onLoaded = (index: number, fault?: string): void => void faults.push([index, fault]);
    assertEquals((await adapter.load(rooms, { ...call(), onLoaded })).toString(), "0001");
    assertEquals(faults.sort(), [[0, "magic"], [1, "magic"], [2, "magic"], [3, undefined]]);
    assertEquals(await storeBits(adapter, keys.slice(0, 1), SIZE), "1", "a store replaces it");
    assertEquals(await loadBits(adapter, keys.slice(0, 1), SIZE), "1");
    await adapter.delete?.(keys, call());
    assertEquals(await server.command("DBSIZE"), "0");
  },
);

redisTest("a list reports that it left out objects with damaged keys", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port);
  const long = new ObjectKey({ chunkHash: new Uint8Array(32), model: "m".repeat(250) });
  assertEquals(await storeBits(adapter, [long, ...testKeys(1)], SIZE), "11");
  const name = `kvtier:{${encodeFileName(long)}}`;
  await server.command("SETRANGE", name, "80", "xxxxxxxx");
  const listed: string[] = [];
  const list = async (): Promise<void> => {
    for await (const { key } of adapter.list?.(call()) ?? []) listed.push(key.id);
  };
  await assertRejects(list, AdapterError, "1 objects were left out");
  assertEquals(listed, testKeys(1).map(({ id }) => id));
});
