import connector from "../../adapters/connector.ts";
import dram from "../../adapters/dram.ts";
import filePool from "../../adapters/file_pool.ts";
import fs from "../../adapters/fs.ts";
import mock from "../../adapters/mock.ts";
import resp from "../../adapters/resp.ts";
import s3 from "../../adapters/s3.ts";
import type { L2AdapterModule } from "../../src/adapter/contract.ts";
import { adapterConformanceCases, type ConformanceSetup } from "../../src/testing/mod.ts";
import { filePoolConfig } from "../support/file_pool_config.ts";
import { redisTest, startRedis } from "../support/redis_server.ts";
import { ScriptedS3 } from "../support/scripted_s3.ts";
import { tempDirectory } from "../support/temp_directory.ts";

interface Variant {
  readonly module: L2AdapterModule;
  readonly config: (promise: string) => ConformanceSetup | Promise<ConformanceSetup>;
}

/** Configuration with its own directory. */
async function inDirectory(
  config: (path: string) => Readonly<Record<string, unknown>>,
): Promise<ConformanceSetup> {
  const directory = await tempDirectory();
  const dispose = () => directory[Symbol.asyncDispose]();
  return { config: config(directory.path), [Symbol.asyncDispose]: dispose };
}

const adapters: Readonly<Record<string, Variant>> = {
  fs: { module: fs, config: () => inDirectory((path) => ({ "base_path": path })) },
  "fs, past the page cache": {
    module: fs,
    config: () => inDirectory((path) => ({ "base_path": path, "use_odirect": true })),
  },
  "file_pool": {
    module: filePool,
    config: (promise) => inDirectory((path) => filePoolConfig(path, promise)),
  },
  mock: {
    module: mock,
    config: () => ({ config: { "max_size_gb": 1, "mock_bandwidth_gb": 1000 } }),
  },
  dram: { module: dram, config: () => ({ config: {} }) },
  "connector, small values": {
    module: connector,
    config: () => ({
      config: {
        module: new URL("../support/connectors.ts", import.meta.url).href,
        export: "map",
        "max_value_bytes": 4096,
      },
    }),
  },
  "s3, in pieces": {
    module: s3,
    config: () => {
      const server = new ScriptedS3();
      const pieces = { "part_bytes": 70_000, "multipart_above_bytes": 0, "ranges_above_bytes": 0 };
      const dispose = () => server[Symbol.asyncDispose]();
      return { config: { ...server.config, ...pieces }, [Symbol.asyncDispose]: dispose };
    },
  },
};

const KEY_NAME = "KVTIER_TEST_MASTER_KEY";
Deno.env.set(KEY_NAME, "5a".repeat(32));
const aesgcm = { type: "aesgcm", "master_key_env": KEY_NAME };
const zstd = { type: "zstd", threads: 1 };
const chains: Readonly<Record<string, unknown>> = {
  "zstd and aesgcm": [zstd, aesgcm],
  zstd,
  aesgcm,
};

/**
 * Cases about sizes, which hold for the transformed objects and are checked by
 * `tests/unit/l2/transforms/transformed_sizes_test.ts`.
 */
const ABOUT_SIZES: readonly string[] = [
  "reports the objects and bytes that it stored",
  "delete removes objects, reports them and their bytes, and can be repeated",
  "a deleted object can be stored again",
  "list returns each object once with its size, and filters by model",
  "a listing can be ended early or aborted",
  "deleting a key twice in one call frees its bytes once",
];
/**
 * Cases that depend on the bytes run with each transform; all others with one chain in front of one
 * adapter, because the transforms are the same everywhere.
 */
const MOVES_BYTES = /gives back|buffers|parts|concurrent|aborted|restart|length|same config/;

Deno.test("transforms: the listed cases about sizes exist", () => {
  const names = adapterConformanceCases.map(({ name }) => name);
  for (const name of ABOUT_SIZES) if (!names.includes(name)) throw new Error(`No case "${name}"`);
});

redisTest("resp adapter with zstd and aesgcm", async (t) => {
  await using server = await startRedis();
  let prefixes = 0;
  const config = () => ({
    config: {
      ...{ host: "127.0.0.1", port: server.port },
      ...{ "chunk_bytes": 5000, "key_prefix": `case-${prefixes++}:` },
      serde: chains["zstd and aesgcm"],
    },
  });
  for (const { name, run } of adapterConformanceCases) {
    if (!MOVES_BYTES.test(name) || ABOUT_SIZES.includes(name)) continue;
    await t.step(name, () => run({ module: resp, config }));
  }
});

for (const [name, { module, config }] of Object.entries(adapters)) {
  for (const [chain, serde] of Object.entries(chains)) {
    for (const { name: promise, run } of adapterConformanceCases) {
      if (ABOUT_SIZES.includes(promise)) continue;
      const isPlainFs = name === "fs";
      if (!isPlainFs && chain !== "zstd and aesgcm") continue;
      if (!(isPlainFs && chain === "zstd and aesgcm") && !MOVES_BYTES.test(promise)) continue;
      Deno.test(
        `${name} adapter with ${chain}: ${promise}`,
        () =>
          run({
            module,
            config: async () => {
              const setup = await config(promise);
              return { ...setup, config: { ...setup.config, serde } };
            },
          }),
      );
    }
  }
}
