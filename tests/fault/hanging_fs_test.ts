import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { join } from "@std/path";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { runChild } from "../support/child.ts";
import { fileOf, objectFilesIn } from "../support/fs_adapter.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { waitUntil } from "../support/wait_until.ts";
import { hangingMount, hangingObstacle } from "./lab/hanging_mount.ts";
import { notRun } from "./lab/not_run.ts";

const layout = testLayout(10_000);
const DEADLINE_MS = 1_000;
/** Deadline of a close. */
const CLOSE_MS = 3_000;
/** Deadline on file systems that respond. */
const PATIENT_MS = 30_000;

function open(
  basePaths: readonly string[],
  config: Readonly<Record<string, unknown>> = {},
  deadlineMs = DEADLINE_MS,
) {
  return TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    l2: basePaths.map((base_path) => ({ type: "fs", base_path, ...config })),
    store: { attempts: 1 },
    breaker: { coolDownMs: 0 },
    timeouts: { storeMs: deadlineMs, loadMs: deadlineMs, lookupMs: deadlineMs },
  });
}

/** Stores objects before anything hangs, however busy the machine is. */
async function fill(
  basePaths: readonly string[],
  config: Readonly<Record<string, unknown>>,
  keys: readonly ObjectKey[],
): Promise<void> {
  await using cache = await open(basePaths, config, PATIENT_MS);
  await putObjects(cache, keys, layout);
}

/** Calls by which the adapter accesses files; all of them for a dead file system. */
const HANGS: Readonly<Record<string, readonly string[]>> = {
  read: ["read"],
  close: ["flush", "release"],
  lookup: ["getattr"],
  everything: "getattr open create read write flush release truncate rename flock utimens unlink"
    .split(" "),
};

for (const isDirect of [false, true]) {
  for (const [name, calls] of Object.entries(HANGS)) {
    const title = `a match is answered although a file system hangs: ${name}`;
    Deno.test({
      name: isDirect ? `${title}, past the page cache` : title,
      // Hung calls are abandoned and end with the file system.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn(t) {
        const obstacle = await hangingObstacle();
        if (obstacle !== undefined) return await notRun(t, obstacle);
        await using mount = await hangingMount();
        const io = isDirect ? "direct" : "buffered";
        const keys = testKeys(12);
        const config = { "use_odirect": isDirect };
        await fill([mount.path], config, keys);
        await using cache = await open([mount.path], config);
        assertEquals(cache.reportStatus().adapters[0]?.details.io, io);
        await mount.hang(...calls);
        let turns = 0;
        const turning = setInterval(() => turns++, 5);
        using _hit = await cache.match(keys, layout, { deadlineMs: DEADLINE_MS });
        await putObjects(cache, testKeys(12, 20), layout);
        clearInterval(turning);
        assert(!await mount.expired(), "what hangs has not kept it waiting");
        assertGreater(turns, 5, "turns of the event loop");
        assertGreater((await mount.hung()).length, 0, "calls that hang");
        await mount.hang();
      },
    });
  }
}

for (const name of ["read", "everything"]) {
  Deno.test({
    name: `threads that hang with a file system are given up, and replaced: ${name}`,
    // Hung calls are abandoned and end with the file system.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(t) {
      const obstacle = await hangingObstacle();
      if (obstacle !== undefined) return await notRun(t, obstacle);
      await using mount = await hangingMount();
      await using directory = await tempDirectory();
      const paths = [mount.path, directory.path];
      const config = { "io_workers": 2 };
      const keys = testKeys(12);
      await fill(paths, config, keys);
      await using cache = await open(paths, config);
      const threads = () =>
        cache.reportStatus().adapters.map(({ details }) =>
          details.threads as { threads: number; hanging: number }
        );
      await waitUntil(() => threads().every(({ threads }) => threads === 2));
      await mount.hang(...HANGS[name] ?? []);
      await putObjects(cache, testKeys(12, 20), layout);
      for (let round = 0; round < 4; round++) {
        cache.clearL1();
        // The other directory has everything.
        await waitUntil(async () => (await countHits(cache, keys, layout)) === keys.length);
      }
      assertGreater((await mount.hung()).length, 0, "calls that hang");
      const [hanging] = threads();
      assertLess((hanging?.threads ?? 0) + (hanging?.hanging ?? 0), 5, "at most twice as many");
      await cache.close({ deadlineMs: CLOSE_MS });
      assert(!await mount.expired(), "what hangs has not kept it waiting");
      await mount.hang();
    },
  });
}

Deno.test({
  name: "two file systems that hang leave threads for a third, and for the program",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(t) {
    const obstacle = await hangingObstacle();
    if (obstacle !== undefined) return await notRun(t, obstacle);
    await using mount = await hangingMount();
    await using directory = await tempDirectory();
    const hanging = ["a", "b"].map((name) => join(mount.path, name));
    const healthy = join(directory.path, "c");
    const paths = [...hanging, healthy];
    const config = { "io_concurrency": 24 };
    const keys = testKeys(24);
    await fill(paths, config, keys);
    await using cache = await open(paths, config);
    await Deno.writeFile(join(mount.backing, "a", ".here"), new Uint8Array(1));
    await mount.hang(...HANGS.everything ?? []);
    for (let round = 0; round < 3; round++) {
      cache.clearL1();
      assertEquals(await countHits(cache, keys, layout), keys.length, `round ${round}`);
      await putObjects(cache, testKeys(24, 100 * (round + 1)), layout);
      assertEquals((await Deno.readFile(join(mount.backing, "a", ".here"))).length, 1);
    }
    assertGreater((await mount.hung()).length, 8, "calls that hang");
    await mount.hang();
  },
});

Deno.test("tenants that differ in case have separate objects on a case-insensitive file system", async (t) => {
  const obstacle = await hangingObstacle();
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using mount = await hangingMount({ foldsCase: true });
  await using cache = await open([mount.path], {}, PATIENT_MS);
  const keys = ["TenantA", "tenanta", "TENANTA"].map((cacheSalt) => testKey(1, { cacheSalt }));
  await putObjects(cache, keys.slice(0, 1), layout);
  cache.clearL1();
  for (const [i, key] of keys.entries()) {
    assertEquals(await countHits(cache, [key], layout), i === 0 ? 1 : 0);
  }
  cache.clearL1();
  await putObjects(cache, keys, layout);
  cache.clearL1();
  for (const key of keys) assertEquals(await countHits(cache, [key], layout), 1);
  assertEquals(cache.reportStatus().adapters[0]?.damagedObjects, {});
});

Deno.test("an object of another key with the same name is a miss and stays", async () => {
  await using directory = await tempDirectory();
  await using cache = await open([directory.path], {}, PATIENT_MS);
  const [key, other] = [testKey(1, { cacheSalt: "A" }), testKey(1, { cacheSalt: "a" })];
  await putObjects(cache, [key], layout);
  // Like a case-insensitive file system that cannot be detected.
  await Deno.link(fileOf(directory.path, key), fileOf(directory.path, other));
  cache.clearL1();
  assertEquals(await countHits(cache, [other], layout), 0);
  assertEquals(cache.reportStatus().adapters[0]?.damagedObjects, { key: 1 });
  assertEquals(await countHits(cache, [key], layout), 1);
  assertEquals((await objectFilesIn(directory.path)).length, 2);
});

Deno.test("a full quota causes evictions, with the system's own error", async (t) => {
  const obstacle = await hangingObstacle();
  if (obstacle !== undefined) return await notRun(t, obstacle);
  for (const error of ["EDQUOT", "ENOSPC"]) {
    await using mount = await hangingMount();
    await using cache = await open([mount.path], {}, PATIENT_MS);
    await putObjects(cache, testKeys(8), layout);
    await mount.limit(90_000, error);
    let next = 50;
    // A failed store reveals the quota; space is freed for the next stores.
    await waitUntil(async () => {
      await putObjects(cache, testKeys(1, next++), layout);
      return (await objectFilesIn(mount.path)).length < 8;
    });
  }
});

Deno.test("a file system without locks stores, with the system's own error", async (t) => {
  const obstacle = await hangingObstacle();
  if (obstacle !== undefined) return await notRun(t, obstacle);
  for (const error of ["ENOLCK", "ENOSYS"]) {
    await using mount = await hangingMount();
    await mount.fail({ flock: error });
    await using cache = await open([mount.path], {}, PATIENT_MS);
    await putObjects(cache, testKeys(8), layout);
    assertEquals((await objectFilesIn(mount.path)).length, 8, error);
    cache.clearL1();
    assertEquals(await countHits(cache, testKeys(8), layout), 8, error);
  }
});

for (const isDirect of [false, true]) {
  const how = isDirect ? ", past the page cache" : "";
  Deno.test(`a program ends by itself without closing its cache${how}`, async (t) => {
    const config = JSON.stringify({ use_odirect: isDirect });
    await using directory = await tempDirectory();
    const program = new URL("./open_and_end.ts", import.meta.url);
    assertEquals(await runChild(program, { args: [directory.path, config] }), 8);
    const obstacle = await hangingObstacle();
    if (obstacle !== undefined) return await notRun(t, obstacle);
    await using mount = await hangingMount();
    assertEquals(await runChild(program, { args: [mount.path, config] }), 8);
  });
}
