import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { join } from "@std/path";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { hangingMount, hangingObstacle } from "./lab/hanging_mount.ts";
import { notRun } from "./lab/not_run.ts";

const layout = testLayout(10_000);
/** A call that hangs does so for 20 s: what is answered before was not kept waiting by it. */
const LONG_BEFORE_MS = 10_000;
const DEADLINE_MS = 300;

function open(basePaths: readonly string[], config: Readonly<Record<string, unknown>> = {}) {
  return TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    l2: basePaths.map((base_path) => ({ type: "fs", base_path, ...config })),
    store: { attempts: 1 },
    breaker: { coolDownMs: 0 },
    timeouts: { storeMs: DEADLINE_MS, loadMs: DEADLINE_MS, lookupMs: DEADLINE_MS },
  });
}

/** Calls by which the adapter gets at files; all of them for a file system that is gone. */
const HANGS: Readonly<Record<string, readonly string[]>> = {
  read: ["read"],
  close: ["flush", "release"],
  lookup: ["getattr"],
  everything: "getattr open create read write flush release truncate rename flock utimens unlink"
    .split(" "),
};

for (const use_odirect of [false, true]) {
  for (const [name, calls] of Object.entries(HANGS)) {
    const title = `a match is answered although a file system hangs: ${name}`;
    Deno.test({
      name: use_odirect ? `${title}, past the page cache` : title,
      // What hangs is left behind, and ends when the file system is gone.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn(t) {
        const obstacle = await hangingObstacle();
        if (obstacle !== undefined) return await notRun(t, obstacle);
        await using mount = await hangingMount();
        const io = use_odirect ? "direct" : "buffered";
        const keys = testKeys(12);
        const cache = await open([mount.path], { use_odirect });
        await putObjects(cache, keys, layout);
        assertEquals(cache.reportStatus().adapters[0]?.details.io, io);
        cache.clearL1();
        await mount.hang(...calls);
        const startedAt = performance.now();
        let turns = 0;
        const turning = setInterval(() => turns++, 5);
        using _hit = await cache.match(keys, layout, { deadlineMs: DEADLINE_MS });
        await putObjects(cache, testKeys(12, 20), layout);
        clearInterval(turning);
        assertLess(performance.now() - startedAt, LONG_BEFORE_MS);
        assertGreater(turns, 5, "turns of the event loop");
        assertGreater((await mount.hung()).length, 0, "calls that hang");
        await mount.hang();
        await cache.close();
      },
    });
  }
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
    // What it asks for in its configuration is more than there is.
    const cache = await open([...hanging, healthy], { io_concurrency: 24 });
    const keys = testKeys(24);
    await putObjects(cache, keys, layout);
    await Deno.writeFile(join(mount.backing, "a", ".here"), new Uint8Array(1));
    await mount.hang(...HANGS.everything ?? []);
    for (let round = 0; round < 4; round++) {
      cache.clearL1();
      assertEquals(await countHits(cache, keys, layout), keys.length, `round ${round}`);
      await putObjects(cache, testKeys(24, 100 * (round + 1)), layout);
      assertEquals((await Deno.readFile(join(mount.backing, "a", ".here"))).length, 1);
    }
    assertGreater((await mount.hung()).length, 8, "calls that hang");
    await mount.hang();
    await cache.close();
  },
});
