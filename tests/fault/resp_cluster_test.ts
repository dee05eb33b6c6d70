import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import * as library from "@redis/client";
import { Connection } from "../../adapters/_resp/connection.ts";
import { encodeFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { systemClock } from "../../src/base/clock.ts";
import { testKeys } from "../support/objects.ts";
import {
  type RedisCluster,
  type RedisServer,
  redisTest,
  startRedisCluster,
  waitUntil,
} from "../support/redis_server.ts";
import { call, loadBits, lookupBits, openResp, storeBits } from "../support/resp_adapter.ts";

const HANG_MS = 20_000;
const SIZE = 10_500;
const keys = testKeys(40);
const all = "1".repeat(40);
const config = { cluster: true, "chunk_bytes": 1000, "connect_timeout_ms": 500 };

/** The slot that the values of an object lie in. */
async function slotOf(server: RedisServer, key: ObjectKey): Promise<number> {
  return Number(await server.command("CLUSTER", "KEYSLOT", `{${encodeFileName(key)}}`));
}

async function idOf(server: RedisServer): Promise<string> {
  return await server.command("CLUSTER", "MYID");
}

/** The node that got a slot when the cluster was made, and another one. */
function nodesOf({ nodes }: RedisCluster, slot: number): [RedisServer, RedisServer] {
  const index = nodes.findIndex((_, i) => slot < Math.floor((i + 1) * 16_384 / nodes.length));
  const [from, to] = [nodes[index], nodes[(index + 1) % nodes.length]];
  assert(from !== undefined && to !== undefined);
  return [from, to];
}

/** Moves so many values of a slot. */
async function migrate(
  from: RedisServer,
  to: RedisServer,
  slot: number,
  count: number,
): Promise<void> {
  const names = await from.command("CLUSTER", "GETKEYSINSLOT", String(slot), String(count));
  if (names === "") return;
  const where = ["127.0.0.1", String(to.port), "", "0", "5000", "KEYS"];
  assertEquals(await from.command("MIGRATE", ...where, ...names.split("\n")), "OK");
}

redisTest("faults of a cluster", async (t) => {
  await using cluster = await startRedisCluster(3);
  const [first] = cluster.nodes;
  assert(first !== undefined);
  const codes = new Set<unknown>();
  await using adapter = await openResp(first.port, { ...config, "max_capacity_gb": 1 }, {
    onError: ({ cause }) => codes.add(Reflect.get(Object(cause), "code")),
  });
  assertEquals(await storeBits(adapter, keys, SIZE), all);

  await t.step("objects of a slot that moves are found before, meanwhile and after", async () => {
    const [moving] = keys as [ObjectKey];
    const slot = await slotOf(first, moving);
    const [from, to] = nodesOf(cluster, slot);
    const number = String(slot);
    await to.command("CLUSTER", "SETSLOT", number, "IMPORTING", await idOf(from));
    await from.command("CLUSTER", "SETSLOT", number, "MIGRATING", await idOf(to));
    assertEquals(await loadBits(adapter, keys, SIZE), all, "nothing has moved");
    await migrate(from, to, slot, 5);
    // Values are on both sides: a value is asked for where it went.
    assertEquals(await loadBits(adapter, keys, SIZE), all, "some values have moved");
    await migrate(from, to, slot, 1000);
    assertEquals(await loadBits(adapter, keys, SIZE), all, "all values have moved");
    assertEquals(await lookupBits(adapter, keys), all);
    assertEquals(await storeBits(adapter, [moving], SIZE), "1", "what is new goes there");
    for (const node of [to, from]) {
      await node.command("CLUSTER", "SETSLOT", number, "NODE", await idOf(to));
    }
    assertEquals(await loadBits(adapter, keys, SIZE), all, "the slot has moved");
    assertEquals(await storeBits(adapter, keys, SIZE), all);
    const listed = await Array.fromAsync(adapter.list?.(call()) ?? []);
    assertEquals(listed.map(({ key }) => key.id).sort(), keys.map(({ id }) => id).sort());
    assertEquals(
      await Promise.all(cluster.nodes.map((node) => node.command("DBSIZE")))
        .then((sizes) => sizes.reduce((sum, size) => sum + Number(size), 0)),
      40 * 11,
    );
  });

  await t.step(
    "a store into a slot of which some values have moved is whole or not there",
    async () => {
      const moving = keys[1] as ObjectKey;
      const slot = await slotOf(first, moving);
      const [from, to] = nodesOf(cluster, slot);
      const number = String(slot);
      await to.command("CLUSTER", "SETSLOT", number, "IMPORTING", await idOf(from));
      await from.command("CLUSTER", "SETSLOT", number, "MIGRATING", await idOf(to));
      await migrate(from, to, slot, 5);
      const stored = await storeBits(adapter, [moving], SIZE).catch(() => "0");
      const loaded = await loadBits(adapter, [moving], SIZE);
      assert(stored === "0" || loaded === "1", "what is stored can be loaded");
      await migrate(from, to, slot, 1000);
      for (const node of [to, from]) {
        await node.command("CLUSTER", "SETSLOT", number, "NODE", await idOf(to));
      }
      assertEquals(await storeBits(adapter, [moving], SIZE), "1");
      assertEquals(await loadBits(adapter, keys, SIZE), all);
    },
  );

  await t.step("a node that dies takes its objects away, and no others", async () => {
    const dead = cluster.nodes[2];
    const slots = await Promise.all(keys.map((key) => slotOf(first, key)));
    await dead?.kill();
    codes.clear();
    const loaded = await deadline(loadBits(adapter, keys, SIZE), HANG_MS);
    const isElsewhere = (slot: number) => slot < Math.floor(2 * 16_384 / 3);
    // Two slots have moved before.
    const served = slots.filter((slot, n) => isElsewhere(slot) && loaded[n] === "1").length;
    assert(served >= slots.filter(isElsewhere).length - 2, `of the others ${served} are served`);
    assert(loaded.includes("0"), "what was there is gone");
    assert(codes.size > 0, "that is told");
    const opened = () => Number(adapter.reportStatus?.().openedConnections);
    const [startedAt, openedBefore] = [performance.now(), opened()];
    for (let i = 0; i < 20; i++) await lookupBits(adapter, keys).catch(() => {});
    const most = 2 + (performance.now() - startedAt) / 1000;
    assert(opened() - openedBefore <= most, `${opened() - openedBefore} connections in 20 calls`);
    const stored = await deadline(storeBits(adapter, keys, SIZE), HANG_MS);
    assert(stored.includes("0") && stored.includes("1"), `stored: ${stored}`);

    await dead?.start();
    await waitUntil(async () => {
      const infos = cluster.nodes.map((node) => node.command("CLUSTER", "INFO"));
      return (await Promise.all(infos)).every((info) => info.includes("cluster_state:ok"));
    });
    await waitUntil(async () => await storeBits(adapter, keys, SIZE) === all);
    await waitUntil(async () => await loadBits(adapter, keys, SIZE) === all);
  });

  await t.step("the node of the configuration may be gone", async () => {
    await first.kill();
    await first.start();
    await waitUntil(async () => {
      try {
        return await storeBits(adapter, keys, SIZE) === all;
      } catch {
        return false;
      }
    });
    await first.kill();
    const loaded = await deadline(loadBits(adapter, keys, SIZE), HANG_MS);
    assert(loaded.includes("1"), "the others are served");
  });
});

redisTest("a node that says nothing does not keep the others from being found", async () => {
  await using cluster = await startRedisCluster(3);
  const [silent] = cluster.nodes;
  assert(silent !== undefined);
  silent.signal("SIGSTOP");
  // Discovery begins at a node that it chooses by chance.
  for (let i = 0; i < 12; i++) {
    const connection = new Connection({
      library,
      servers: cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port })),
      isCluster: true,
      username: undefined,
      password: undefined,
      database: 0,
      tls: undefined,
      connectTimeoutMs: 2_000,
      clock: systemClock,
    });
    await connection.open();
    assertEquals(connection.masterAddresses.length, 3);
    connection.destroy();
  }
  silent.signal("SIGCONT");
});
