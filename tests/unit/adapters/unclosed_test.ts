import { assertEquals } from "@std/assert";
import { runChild } from "../../support/child.ts";
import { redisTest, startRedis, startRedisCluster } from "../../support/redis_server.ts";
import { startS3 } from "../../support/s3_server.ts";

const program = new URL("../../support/unclosed.ts", import.meta.url);

/** A program that never closes its cache must end by itself. */
async function assertEnds(config: Readonly<Record<string, unknown>>): Promise<void> {
  const shell = ["timeout", "-s", "KILL", "20"] as const;
  const args = [JSON.stringify(config)];
  assertEquals(await runChild(program, { args, shell }), { isComplete: true });
}

redisTest("a cache with resp that is never closed keeps no process alive", async () => {
  await using server = await startRedis();
  await assertEnds({ type: "resp", host: "127.0.0.1", port: server.port });
});

redisTest(
  "a cache with resp on a cluster that is never closed keeps no process alive",
  async () => {
    await using cluster = await startRedisCluster();
    const port = cluster.nodes[0]?.port;
    await assertEnds({ type: "resp", host: "127.0.0.1", port, cluster: true });
  },
);

Deno.test("a cache with s3 that is never closed keeps no process alive", async () => {
  await using server = await startS3();
  await assertEnds({ type: "s3", ...server.config });
});

Deno.test("a cache with a connector that is never closed keeps no process alive", async () => {
  const module = new URL("../../support/connectors.ts", import.meta.url).href;
  await assertEnds({ type: "connector", module, export: "memory" });
});
