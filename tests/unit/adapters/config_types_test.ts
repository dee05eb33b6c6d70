import { assertEquals } from "@std/assert";
import { builtInAdapters } from "../../../adapters/mod.ts";
import {
  type ConnectorConfig,
  type DramConfig,
  type FaultInjectConfig,
  type FilePoolConfig,
  type FsConfig,
  HostDevice,
  type L2Config,
  type MockConfig,
  type PluginConfig,
  type RespConfig,
  type S3Config,
  TieredCache,
} from "../../../mod.ts";
import {
  type ConfigOf,
  defineL2Adapter,
  type L2AdapterModule,
} from "../../../src/adapter/contract.ts";
import { mapAdapter } from "../../support/adapters.ts";

/** A configuration of each built-in type, as a user writes it: the compiler checks the keys. */
const configs = [
  { type: "connector", module: "./store.ts", kind: "keyv" } satisfies ConnectorConfig,
  { type: "dram", eviction: { eviction_ratio: 0.5 }, serde: { type: "zstd" } } satisfies DramConfig,
  { type: "fault_inject", inner: { type: "dram" }, gap_indices: [0] } satisfies FaultInjectConfig,
  { type: "file_pool", pool_size: 9, backend_params: { file_path: "." } } satisfies FilePoolConfig,
  { type: "fs", base_path: ".", relative_tmp_dir: null, durability: "full" } satisfies FsConfig,
  { type: "mock", max_size_gb: 1, mock_bandwidth_gb: 2 } satisfies MockConfig,
  { type: "plugin", module: "./map.ts", eviction: { max_capacity_gb: 1 } } satisfies PluginConfig,
  { type: "resp", host: "127.0.0.1", cluster: false } satisfies RespConfig,
  { type: "s3", s3_endpoint: "s3://kv", s3_region: "us-east-1" } satisfies S3Config,
] satisfies L2Config[];

Deno.test("each built-in adapter has a type for its configuration", () => {
  assertEquals(configs.map(({ type }) => type), Object.keys(builtInAdapters));
});

Deno.test("the type of a configuration refuses what the adapter refuses", async () => {
  // @ts-expect-error: a required key is missing.
  const missing = { type: "fs" } satisfies FsConfig;
  // @ts-expect-error: a key is mistyped.
  const unknown = { type: "fs", base_path: ".", bass_path: "." } satisfies FsConfig;
  // @ts-expect-error: a value has another type.
  const wrong = { type: "fs", base_path: 7 } satisfies FsConfig;
  // @ts-expect-error: a choice is unknown.
  const choice = { type: "fs", base_path: ".", durability: "total" } satisfies FsConfig;
  // @ts-expect-error: the type is another one.
  const type = { type: "dram", base_path: "." } satisfies FsConfig;
  // @ts-expect-error: a key of a nested object is unknown.
  const nested = { type: "dram", eviction: { ratio: 1 } } satisfies DramConfig;
  for (const config of [missing, unknown, wrong, choice, type, nested]) {
    let isRefused = false;
    try {
      await using _ = await TieredCache.open({ device: new HostDevice(), l2: [config] });
    } catch (error) {
      isRefused = error instanceof Error && error.name === "ConfigError";
    }
    assertEquals(isRefused, true, JSON.stringify(config));
  }
});

Deno.test("ConfigOf gives the configuration of any module", async () => {
  const module = defineL2Adapter({
    type: "shelf",
    summary: "Objects on a shelf.",
    config: {
      boards: { type: "number", required: true, help: "Boards." },
      serde: { type: "string", help: "Its own." },
    },
    create: () => mapAdapter(),
  });
  type ShelfConfig = ConfigOf<"shelf", typeof module>;
  // @ts-expect-error: the module declares serde as a string.
  ({ type: "shelf", boards: 1, serde: { type: "zstd" } }) satisfies ShelfConfig;
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    adapters: [module as unknown as L2AdapterModule],
    l2: [{ type: "shelf", boards: 3, serde: "mine" } satisfies ShelfConfig],
  });
  assertEquals(cache.listAdapters().map(({ type }) => type), ["shelf"]);
});
