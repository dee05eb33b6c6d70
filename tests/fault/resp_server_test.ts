import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import { AdapterError, type L2Adapter } from "../../src/adapter/contract.ts";
import { AdapterGuard } from "../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";
import { systemClock } from "../../src/base/clock.ts";
import { testBytes, testKeys, testLayout } from "../support/objects.ts";
import { type RedisServer, redisTest, startRedis, waitUntil } from "../support/redis_server.ts";
import {
  call,
  loadBits,
  lookupBits,
  openResp,
  respObject,
  respRoom,
  storeBits,
} from "../support/resp_adapter.ts";
import { emptyObject, sealedObject } from "../support/sealed_objects.ts";

const MIB = 2 ** 20;
const SIZE = 400_000;
/** Timeout in milliseconds: a test that hangs fails. */
const HANG_MS = 20_000;
const small = { "chunk_bytes": 50_000 };

/** Errors that an adapter reports, by what the server called them. */
function reported(): { codes: string[]; onError: (error: AdapterError) => void } {
  const codes: string[] = [];
  const onError = ({ cause }: AdapterError) =>
    void codes.push(String(Reflect.get(Object(cause), "code")));
  return { codes, onError };
}

function count(bits: string): number {
  return bits.replaceAll("0", "").length;
}

async function valuesOn(server: RedisServer): Promise<number> {
  return Number(await server.command("DBSIZE"));
}

/** A guard that tries again at once. */
function guardOf(adapter: L2Adapter): AdapterGuard {
  return new AdapterGuard(adapter, {
    id: 1,
    type: "resp",
    clock: systemClock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
    breaker: { failures: 3, coolDownMs: 1, maxCoolDownMs: 1 },
  });
}

redisTest(
  "a server that is not there is an error to each call, and is used when it comes",
  async () => {
    await using server = await startRedis();
    await server.kill();
    await using adapter = await openResp(server.port, small);
    const keys = testKeys(2);
    for (
      const what of [
        () => storeBits(adapter, keys, SIZE),
        () => loadBits(adapter, keys, SIZE),
        () => lookupBits(adapter, keys),
        async () => await adapter.delete?.(keys, call()),
        async () => await Array.fromAsync(adapter.list?.(call()) ?? []),
      ]
    ) {
      const error = await assertRejects(() => deadline<unknown>(what(), HANG_MS), AdapterError);
      assertEquals(Reflect.get(Object(error.cause), "code"), "ECONNREFUSED");
    }
    await server.start();
    assertEquals(await storeBits(adapter, keys, SIZE), "11");
    assertEquals(await loadBits(adapter, keys, SIZE), "11");
  },
);

redisTest(
  "killed within stores: they count as failed, loads miss, and it goes on when it is back",
  async () => {
    await using server = await startRedis();
    await using adapter = await openResp(server.port, { ...small, "connect_timeout_ms": 500 }, {
      onError: () => {},
    });
    const guard = guardOf(adapter);
    const layout = testLayout(SIZE);
    const keys = testKeys(60);
    const batch = keys.map((key) => sealedObject(key, layout));
    let offered = 0;
    let stored = 0;
    let isKilled = false;
    const storing = (async () => {
      // One more when it is gone.
      for (let isLast = false; !isLast; offered += 60) {
        isLast = isKilled;
        const batches = [0, 20, 40].map((from) => guard.store(batch.slice(from, from + 20)));
        for (const { done } of await Promise.all(batches)) stored += done.popcount();
      }
    })();
    await waitUntil(async () => await valuesOn(server) > 20);
    await server.kill();
    isKilled = true;
    await deadline(storing, HANG_MS);
    const status = guard.reportStatus();
    assert(stored <= offered - 60, "nothing was stored when the server was gone");
    assertEquals([status.storedObjects, status.failedStores], [stored, offered - stored]);
    assertEquals((await guard.lookup(keys, { prefix: false })).done.popcount(), 0);
    assertEquals(
      (await guard.load(keys.map((key) => emptyObject(key, layout)))).done.popcount(),
      0,
    );

    await server.start();
    await waitUntil(async () => (await guard.store(batch.slice(0, 20))).done.popcount() === 20);
    await waitUntil(async () =>
      (await guard.lookup(keys, { prefix: true })).done.popcount() === 20
    );
    await waitUntil(async () => {
      const rooms = keys.map((key) => emptyObject(key, layout));
      const { done } = await guard.load(rooms);
      for (const { key, parts: [bytes] } of done.gather(rooms)) {
        assertEquals(bytes, testBytes(key, SIZE));
      }
      return done.popcount() === 20;
    });
    await guard.close();
  },
);

redisTest("killed within a load: what was loaded is right, the rest is missed", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, small, { onError: () => {} });
  const keys = testKeys(60);
  assertEquals(await storeBits(adapter, keys, SIZE), "1".repeat(60));
  const rooms = keys.map((key) => respRoom(key, SIZE));
  const killed = Promise.withResolvers<void>();
  const told = new Set<number>();
  const onLoaded = (index: number): void => {
    told.add(index);
    server.kill().then(killed.resolve, killed.reject);
  };
  const loaded = await deadline(adapter.load(rooms, { ...call(), onLoaded }), HANG_MS);
  await killed.promise;
  assert(loaded.popcount() > 0 && loaded.popcount() < 60, `loaded: ${loaded}`);
  for (const index of told) {
    assert(loaded.toString()[index] === "1", "what was told is in the answer");
  }
  for (const { key, parts: [bytes] } of loaded.gather(rooms)) {
    assertEquals(bytes, testBytes(key, SIZE));
  }
});

redisTest("after connections are cut, calls share the new ones", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, { "num_workers": 2 }, { onError: () => {} });
  const keys = testKeys(20);
  assertEquals(await storeBits(adapter, keys, 1000), "1".repeat(20));
  for (let round = 1; round <= 5; round++) {
    await server.command("CLIENT", "KILL", "TYPE", "normal");
    await waitUntil(() => adapter.reportStatus?.().openConnections === 0);
    const loads = Array.from({ length: 50 }, () => loadBits(adapter, keys, 1000));
    const stores = Array.from({ length: 50 }, () => storeBits(adapter, keys, 1000));
    const all = "1".repeat(20);
    assertEquals(new Set(await Promise.all([...loads, ...stores])), new Set([all]));
    assertEquals(adapter.reportStatus?.().openedConnections, 4 + 4 * round);
  }
});

redisTest(
  "what the server evicts is missed, not claimed again, and leaves the account",
  async () => {
    await using server = await startRedis(["maxmemory 30mb", "maxmemory-policy allkeys-lru"]);
    await using adapter = await openResp(server.port, { ...small, "max_capacity_gb": 1 }, {
      onError: () => {},
    });
    const keys = testKeys(120);
    const steps = Array.from({ length: 30 }, (_, n) => keys.slice(4 * n, 4 * n + 4));
    for (const step of steps) await storeBits(adapter, step, SIZE);
    let loaded = "";
    for (const step of steps) loaded += await loadBits(adapter, step, SIZE);
    assert(count(loaded) > 0 && count(loaded) < 120, `loaded: ${loaded}`);
    const found = await lookupBits(adapter, keys);
    assert([...found].every((bit, n) => bit <= (loaded[n] ?? "")), `found: ${found}`);
    const usage = await adapter.usage?.(call());
    assertEquals(usage?.objectCount, count(found));
    assertEquals(usage?.usedBytes, count(found) * SIZE);
  },
);

redisTest(
  "a server without room stores what fits, keeps nothing of the rest, and heals",
  async () => {
    await using server = await startRedis(["maxmemory 12mb", "maxmemory-policy noeviction"]);
    const { codes, onError } = reported();
    await using adapter = await openResp(server.port, small, { onError });
    const keys = testKeys(60);
    const stored = await storeBits(adapter, keys, SIZE);
    assert(count(stored) > 0 && count(stored) < 60, `stored: ${stored}`);
    assertEquals(new Set(codes), new Set(["OOM"]));
    assertEquals(await loadBits(adapter, keys, SIZE), stored);
    assertEquals(await valuesOn(server), count(stored) * 9);
    await server.command("CONFIG", "SET", "maxmemory", "1mb");
    assertEquals(await storeBits(adapter, keys.slice(0, 1), SIZE), "0");
    assertEquals(await storeBits(adapter, keys.slice(0, 1), 100), "0");
    const before = await valuesOn(server);
    const { deleted } = await adapter.delete?.(keys, call()) ?? {};
    assertEquals(deleted?.toString(), stored, `${before} values`);
    await server.command("CONFIG", "SET", "maxmemory", "12mb");
    assertEquals(await storeBits(adapter, keys.slice(0, 3), SIZE), "111");
  },
);

redisTest(
  "a server that takes no writes is read, and written when it takes them again",
  async () => {
    await using server = await startRedis();
    const { codes, onError } = reported();
    await using adapter = await openResp(server.port, small, { onError });
    const keys = testKeys(4);
    assertEquals(await storeBits(adapter, keys.slice(0, 2), SIZE), "11");
    // No server listens on that port.
    await server.command("REPLICAOF", "127.0.0.1", "1");
    // Each connection is given up for another one: a call that has none left rejects.
    for (const size of [SIZE, 100]) {
      const stored = await storeBits(adapter, keys.slice(2), size).catch((error: unknown) => {
        assertStringIncludes(String(error), "READONLY");
        return "00";
      });
      assertEquals(stored, "00");
    }
    for (const code of codes) assertEquals(code, "READONLY");
    assertEquals(await loadBits(adapter, keys, SIZE), "1100");
    await assertRejects(async () => await adapter.delete?.(keys, call()), AdapterError, "READONLY");
    assertEquals(await lookupBits(adapter, keys), "1100");
    await server.command("REPLICAOF", "NO", "ONE");
    assertEquals(await storeBits(adapter, keys, SIZE), "1111");
    assertEquals(await loadBits(adapter, keys, SIZE), "1111");
  },
);

redisTest("a server that is busy is an error, and is used when it is idle", async () => {
  await using server = await startRedis(["busy-reply-threshold 1"]);
  await using adapter = await openResp(server.port, small);
  assertEquals(await storeBits(adapter, testKeys(1), SIZE), "1");
  const busy = server.command("EVAL", "while true do end", "0");
  await waitUntil(async () => (await server.command("PING")).startsWith("BUSY"));
  await assertRejects(() => loadBits(adapter, testKeys(1), SIZE), AdapterError, "BUSY");
  await assertRejects(() => lookupBits(adapter, testKeys(1)), AdapterError, "BUSY");
  await server.command("SCRIPT", "KILL");
  await busy;
  assertEquals(await loadBits(adapter, testKeys(1), SIZE), "1");
});

redisTest("a server that stands still: calls that are aborted end, and it goes on", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, small, { onError: () => {} });
  const held = testKeys(4);
  const fresh = testKeys(8, 10);
  assertEquals(await storeBits(adapter, held, SIZE), "1111");
  for (const silenceMs of [0, 1_100]) {
    server.signal("SIGSTOP");
    const controller = new AbortController();
    const options = { signal: controller.signal };
    const rooms = held.map((key) => respRoom(key, SIZE));
    const calls = Promise.all([
      adapter.load(rooms, options),
      adapter.lookupAndLock(held, { ...options, prefix: true }),
      adapter.delete?.(held, options).then(({ deleted }) => deleted),
      adapter.store(fresh.map((key) => respObject(key, MIB)), options).then((result) =>
        result.stored
      ),
      Array.fromAsync(adapter.list?.(options) ?? []).then((objects) => objects.length),
    ]);
    await new Promise((resolve) => setTimeout(resolve, silenceMs));
    controller.abort();
    const answers = await deadline(calls, HANG_MS);
    assertEquals(answers.map(String), ["0000", "0000", "0000", "00000000", "0"]);
    const before = rooms.map(({ parts: [bytes] }) => bytes?.slice());
    server.signal("SIGCONT");
    await waitUntil(async () => {
      try {
        return await lookupBits(adapter, held) !== "";
      } catch {
        return false;
      }
    });
    // What was asked before may still be done, but nothing is written into rooms of ended calls.
    assertEquals(rooms.map(({ parts: [bytes] }) => bytes), before);
    await waitUntil(async () => await storeBits(adapter, held, SIZE) === "1111");
    assertEquals(await loadBits(adapter, held, SIZE), "1111");
    // Stored or not, an object is whole.
    await loadBits(adapter, fresh, MIB);
  }
});

redisTest("an adapter closes while its server stands still", async () => {
  await using server = await startRedis();
  const adapter = await openResp(server.port, { ...small, "max_capacity_gb": 1 });
  assertEquals(await storeBits(adapter, testKeys(4), SIZE), "1111");
  server.signal("SIGSTOP");
  const calls = [
    storeBits(adapter, testKeys(4), SIZE),
    loadBits(adapter, testKeys(4), SIZE),
    lookupBits(adapter, testKeys(4)),
  ];
  const settled = Promise.allSettled(calls);
  await deadline(adapter[Symbol.asyncDispose](), HANG_MS);
  const outcomes = await deadline(settled, HANG_MS);
  assertEquals(outcomes.map(({ status }) => status), ["rejected", "rejected", "rejected"]);
  await assertRejects(() => storeBits(adapter, testKeys(1), 100), AdapterError);
});

redisTest("a server that stands still costs the time of connecting, not more", async () => {
  await using server = await startRedis();
  server.signal("SIGSTOP");
  await using adapter = await deadline(
    openResp(server.port, { "connect_timeout_ms": 50 }),
    HANG_MS,
  );
  const error = await assertRejects(
    () => deadline(lookupBits(adapter, testKeys(1)), HANG_MS),
    AdapterError,
  );
  assertEquals(Reflect.get(Object(error.cause), "code"), "ETIMEDOUT");
  server.signal("SIGCONT");
  assertEquals(await storeBits(adapter, testKeys(1), 100), "1");
});
