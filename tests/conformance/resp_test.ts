import resp from "../../adapters/resp.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import {
  type RedisServer,
  redisTest,
  startRedis,
  startRedisCluster,
} from "../support/redis_server.ts";

type Options = Readonly<Record<string, unknown>>;

/** Configurations, each with its servers, which are started once. */
const variants: readonly {
  readonly on: string;
  readonly nodes: number;
  readonly options: Readonly<Record<string, Options>>;
}[] = [
  {
    on: "one server",
    nodes: 1,
    options: {
      "as it is": {},
      "small chunks": { "chunk_bytes": 1000, "num_workers": 2 },
      "bounded by itself": {
        "max_capacity_gb": 1,
        "chunk_bytes": 60_000,
        "ttl_seconds": 600,
      },
    },
  },
  {
    on: "a cluster",
    nodes: 3,
    options: {
      "as it is": { cluster: true },
      "small chunks, bounded by itself": {
        cluster: true,
        "chunk_bytes": 5000,
        "max_capacity_gb": 1,
        "num_workers": 2,
      },
    },
  },
];

for (const { on, nodes: count, options } of variants) {
  redisTest(`resp adapter on ${on}`, async (t) => {
    await using stack = new AsyncDisposableStack();
    const nodes: readonly RedisServer[] = count === 1
      ? [stack.use(await startRedis())]
      : stack.use(await startRedisCluster(count)).nodes;
    for (const [name, values] of Object.entries(options)) {
      const config = () => ({
        config: { host: "127.0.0.1", port: nodes[0]?.port, ...values },
        [Symbol.asyncDispose]: async () => {
          await Promise.all(nodes.map((node) => node.command("FLUSHALL")));
        },
      });
      const boundedConfig = (capacityBytes: number) => {
        const setup = config();
        return {
          ...setup,
          config: { ...setup.config, "max_capacity_gb": capacityBytes / 2 ** 30 },
        };
      };
      const bounds = "max_capacity_gb" in values ? { boundedConfig } : {};
      for (const { name: promise, run } of adapterConformanceCases) {
        await t.step(`${name}: ${promise}`, () => run({ module: resp, config, ...bounds }));
      }
    }
  });
}
