import resp from "../../adapters/resp.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import {
  type RedisServer,
  redisTest,
  startRedis,
  startRedisCluster,
} from "../support/redis_server.ts";

interface Variant {
  readonly nodes: number;
  readonly options: Readonly<Record<string, unknown>>;
}

const variants: Readonly<Record<string, Variant>> = {
  "one server": { nodes: 1, options: {} },
  "one server, small chunks": { nodes: 1, options: { "chunk_bytes": 1000, "num_workers": 2 } },
  "one server, bounded by itself": {
    nodes: 1,
    options: { "max_capacity_gb": 1, "chunk_bytes": 60_000, "ttl_seconds": 600 },
  },
  "a cluster": { nodes: 3, options: { cluster: true } },
  "a cluster, small chunks, bounded by itself": {
    nodes: 3,
    options: { cluster: true, "chunk_bytes": 5000, "max_capacity_gb": 1, "num_workers": 2 },
  },
};

for (const [name, { nodes: count, options }] of Object.entries(variants)) {
  redisTest(`resp adapter on ${name}`, async (t) => {
    await using stack = new AsyncDisposableStack();
    const nodes: readonly RedisServer[] = count === 1
      ? [stack.use(await startRedis())]
      : stack.use(await startRedisCluster(count)).nodes;
    const config = () => ({
      config: { host: "127.0.0.1", port: nodes[0]?.port, ...options },
      [Symbol.asyncDispose]: async () => {
        await Promise.all(nodes.map((node) => node.command("FLUSHALL")));
      },
    });
    for (const { name: promise, run } of adapterConformanceCases) {
      await t.step(promise, () => run({ module: resp, config }));
    }
  });
}
