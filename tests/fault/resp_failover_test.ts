import { assert, assertEquals } from "@std/assert";
import { testKeys } from "../support/objects.ts";
import { redisTest, startRedis, waitUntil } from "../support/redis_server.ts";
import { loadBits, lookupBits, openResp, storeBits } from "../support/resp_adapter.ts";
import { UnsteadyProxy } from "../support/unsteady_proxy.ts";

const SIZE = 100_000;
const replicated = ["repl-diskless-sync-delay 0", "repl-ping-replica-period 1"];

redisTest("after a failover behind one name, stores go to the new master at once", async () => {
  await using first = await startRedis(replicated);
  await using second = await startRedis(replicated);
  await second.command("REPLICAOF", "127.0.0.1", String(first.port));
  await waitUntil(async () => (await second.command("ROLE")).includes("connected"));
  await using name = new UnsteadyProxy(first.port);
  await using adapter = await openResp(name.port, { "chunk_bytes": 30_000 });
  const [before, after] = [testKeys(4), testKeys(4, 100)];
  assertEquals(await storeBits(adapter, before, SIZE), "1111");
  assertEquals(await loadBits(adapter, before, SIZE), "1111");
  const count = await first.command("DBSIZE");
  await waitUntil(async () => await second.command("DBSIZE") === count);

  // The open connections stay with the old master, which answers READONLY from now on.
  await second.command("REPLICAOF", "NO", "ONE");
  name.target = second.port;
  await first.command("REPLICAOF", "127.0.0.1", String(second.port));

  assertEquals(await storeBits(adapter, after, SIZE), "1111");
  assertEquals(await loadBits(adapter, [...before, ...after], SIZE), "1".repeat(8));
  const { deleted } = await adapter.delete?.(before, { signal: AbortSignal.timeout(20_000) }) ?? {};
  assertEquals(deleted?.toString(), "1111");
  assertEquals(await lookupBits(adapter, [...before, ...after]), "00001111");
  assert(Number(await second.command("DBSIZE")) > 0);
});

redisTest("a removal, too, finds the new master", async () => {
  await using first = await startRedis(replicated);
  await using second = await startRedis(replicated);
  await using name = new UnsteadyProxy(first.port);
  await using adapter = await openResp(name.port);
  const keys = testKeys(2);
  assertEquals(await storeBits(adapter, keys, SIZE), "11");
  await second.command("REPLICAOF", "127.0.0.1", String(first.port));
  await waitUntil(async () => await second.command("DBSIZE") === "2");
  await second.command("REPLICAOF", "NO", "ONE");
  name.target = second.port;
  await first.command("REPLICAOF", "127.0.0.1", String(second.port));
  const { deleted } = await adapter.delete?.(keys, { signal: AbortSignal.timeout(20_000) }) ?? {};
  assertEquals(deleted?.toString(), "11");
  assertEquals(await second.command("DBSIZE"), "0");
});
