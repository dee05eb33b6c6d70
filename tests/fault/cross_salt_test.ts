import { assertEquals } from "@std/assert";
import { builtInAdapters } from "../../adapters/mod.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { AdapterGuard } from "../../src/l2/adapter_guard.ts";
import { openGuarded } from "../../src/l2/open_adapter.ts";
import { checkConfig, type L2Config } from "../../src/l2/adapter_config.ts";
import { openAdapterRegistry } from "../../src/known_adapters.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { seededRandom } from "../support/random.ts";
import { redisObstacle, startRedis } from "../support/redis_server.ts";
import { runs } from "../support/runs.ts";
import { ScriptedS3 } from "../support/scripted_s3.ts";
import { emptyObject, sealedObject } from "../support/sealed_objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { printFigures } from "./lab/figures.ts";

// deno test -A tests/fault/cross_salt_test.ts -- [--runs PROBES] [--seed S]

const { numRuns: PROBES, seed = Date.now() % 1_000_000 } = runs(4_000);
const OBJECTS = 64;
/** Keys per call. */
const BATCH = 500;
/** One in this number of probes is also loaded. */
const LOADED = 5;
const SALT = "tenant-7";
const layout = testLayout(1024);
const own = Array.from({ length: OBJECTS }, (_, n) => testKey(n, { cacheSalt: SALT }));

/** Salts that could be mistaken for the right one. */
const LIKELY = [
  ...["", " tenant-7", "tenant-7 ", "Tenant-7", "tenant-70", "tenant-", "tenant-７", "tenant‐7"],
  ...["tenant%2D7", "tenant-7.data", "..", "*", "tenant-?", "tenant-[7]", "tenant-7:0"],
  ...["{tenant-7}", "tenant-7?x", "tenant-7#x", "tenant+7", "tenant-7".repeat(15)],
];

type Opening = (stack: AsyncDisposableStack) => Promise<L2Config | string>;

/** Opens each adapter, or gives the reason why it cannot be opened. */
const openings: Readonly<Record<string, Opening>> = {
  connector: () => {
    const module = new URL("../support/connectors.ts", import.meta.url).href;
    return Promise.resolve({ type: "connector", module, export: "map" });
  },
  dram: () => Promise.resolve({ type: "dram" }),
  "fault_inject": () => Promise.resolve({ type: "fault_inject", inner: { type: "dram" } }),
  "file_pool": async (stack) => ({
    type: "file_pool",
    "pool_size": OBJECTS,
    "backend_params": { "file_path": stack.use(await tempDirectory()).path, "slot_bytes": 4096 },
  }),
  fs: async (stack) => ({ type: "fs", "base_path": stack.use(await tempDirectory()).path }),
  mock: () => Promise.resolve({ type: "mock", "max_size_gb": 1, "mock_bandwidth_gb": 1000 }),
  plugin: () => {
    const module = new URL("../../adapters/dram.ts", import.meta.url).href;
    return Promise.resolve({ type: "plugin", module });
  },
  resp: async (stack) => {
    const obstacle = await redisObstacle();
    if (obstacle !== undefined) return obstacle;
    return { type: "resp", host: "127.0.0.1", port: stack.use(await startRedis()).port };
  },
  s3: (stack) => Promise.resolve({ type: "s3", ...stack.use(new ScriptedS3()).config }),
};

async function open(config: L2Config): Promise<AdapterGuard> {
  const registry = await openAdapterRegistry({});
  return (await openGuarded(await checkConfig(registry, config), { registry })).guard;
}

async function loadedOf(guard: AdapterGuard, keys: readonly ObjectKey[]): Promise<number> {
  return (await guard.load(keys.map((key) => emptyObject(key, layout)))).done.popcount();
}

Deno.test("every adapter is probed", () => {
  assertEquals(Object.keys(openings).sort(), Object.keys(builtInAdapters).sort());
});

for (const [type, opening] of Object.entries(openings)) {
  Deno.test(`${type}: ${PROBES} probes with other salts find nothing, seed ${seed}`, async (t) => {
    await using stack = new AsyncDisposableStack();
    const config = await opening(stack);
    if (typeof config === "string") {
      await t.step(`${config}: not run`, () => {});
      return;
    }
    const guard = await open(config);
    stack.defer(() => guard.close());
    const random = seededRandom(seed);
    const { done } = await guard.store(own.map((key) => sealedObject(key, layout)));
    assertEquals(done.popcount(), OBJECTS);

    const figures = { seed, probes: 0, loads: 0, hits: 0 };
    while (figures.probes < PROBES) {
      const keys = Array.from({ length: Math.min(BATCH, PROBES - figures.probes) }, () => {
        const cacheSalt = random.chance(0.3)
          ? random.pick(LIKELY)
          : `tenant-${random.below(1e9).toString(36)}`;
        return testKey(random.below(OBJECTS), { cacheSalt });
      }).filter(({ cacheSalt }) => cacheSalt !== SALT);
      const { done: found } = await guard.lookup(keys, { prefix: false });
      guard.unlock(found.gather(keys));
      const some = keys.slice(0, Math.ceil(keys.length / LOADED));
      figures.hits += found.popcount() + await loadedOf(guard, some);
      figures.probes += keys.length;
      figures.loads += some.length;
    }
    assertEquals(figures.hits, 0);
    const { done: found } = await guard.lookup(own, { prefix: false });
    const sameSalt = await loadedOf(guard, own);
    guard.unlock(found.gather(own));
    assertEquals([found.popcount(), sameSalt], [OBJECTS, OBJECTS], "the control");
    printFigures("cross-salt", { adapter: type, ...figures, sameSaltHits: sameSalt });
  });
}
