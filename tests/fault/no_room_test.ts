import { assert, assertEquals, assertGreater } from "@std/assert";
import { join } from "@std/path";
import type { DiskSpaceStatus } from "../../adapters/_fs/disk_space_options.ts";
import type { AdapterError, L2Adapter } from "../../src/adapter/contract.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openFs, testObject } from "../support/fs_adapter.ts";
import { testKeys } from "../support/objects.ts";
import { mountObstacle, tmpfsMount } from "./lab/loop_mount.ts";
import { notRun } from "./lab/not_run.ts";

const obstacle = await mountObstacle("tmpfs");
const { signal } = new AbortController();

function spaceOf(adapter: L2Adapter): DiskSpaceStatus {
  return adapter.reportStatus?.()["space"] as DiskSpaceStatus;
}

/** A clock that a test can advance past the pause after a full disk. */
class SkippingClock {
  readonly schedule = systemClock.schedule;
  #skipped = 0;

  now(): number {
    return systemClock.now() + this.#skipped;
  }

  skip(ms: number): void {
    this.#skipped += ms;
  }
}

async function waitFor(isSo: () => boolean): Promise<void> {
  const giveUpAt = Date.now() + 60_000;
  while (!isSo()) {
    assert(Date.now() < giveUpAt, "waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("on a file system without free inodes, objects are evicted for new ones", async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using mount = await tmpfsMount(64 * 2 ** 20, { files: 120 });
  const clock = new SkippingClock();
  const errors: AdapterError[] = [];
  const config = { "base_path": join(mount.path, "base"), "shard_dirs": false };
  await using adapter = await openFs(config, { clock, onError: (error) => errors.push(error) });
  const filler = join(mount.path, "filler");
  await Deno.mkdir(filler);
  // The last inode is used before the adapter has created any file.
  for (let i = 0;; i++) {
    try {
      await Deno.writeFile(join(filler, `${i}`), new Uint8Array());
    } catch {
      break;
    }
  }
  const put = async (n: number): Promise<number> =>
    (await adapter.store(testKeys(1, n).map((key) => testObject(key)), { signal })).stored
      .popcount();
  assertEquals(await put(0), 0);
  await Deno.remove(filler, { recursive: true });
  clock.skip(60_000);
  let stored = 0;
  let failures = 0;
  for (let n = 0; n < 300; n++) {
    const before = spaceOf(adapter).evictedObjects;
    const isStored = await put(n);
    stored += isStored;
    if (isStored) continue;
    failures++;
    // A substantial share is evicted while stores are paused.
    await waitFor(() => spaceOf(adapter).evictedObjects >= before + 15);
    clock.skip(60_000);
  }
  assertEquals(stored + failures, 300);
  assertGreater(stored, 280);
  assert(errors.every(({ code }) => code === "ENOSPC"), `${errors}`);
});

Deno.test("with the defaults, objects are evicted before the disk is full", async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using mount = await tmpfsMount(32 * 2 ** 20);
  // Any failure fails the test.
  await using adapter = await openFs({
    "base_path": join(mount.path, "base"),
    "shard_dirs": false,
  });
  for (let n = 0; n < 800; n += 4) {
    const objects = testKeys(4, n).map((key) => testObject(key, 2 ** 16));
    assertEquals((await adapter.store(objects, { signal })).stored.popcount(), 4, `${n}`);
  }
  const { evictedObjects, usedBytes = 0, capacityBytes = 0 } = spaceOf(adapter);
  assertGreater(evictedObjects, 50);
  assert(usedBytes <= capacityBytes && capacityBytes < 32 * 2 ** 20 * 31 / 32);
});

Deno.test("an invalid file time is tolerated", async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using mount = await tmpfsMount();
  const basePath = join(mount.path, "base");
  const config = {
    "base_path": basePath,
    "shard_dirs": false,
    "max_capacity_gb": 40 * 4096 / 2 ** 30,
  };
  const put = async (adapter: L2Adapter, first: number): Promise<number> => {
    const objects = testKeys(10, first).map((key) => testObject(key));
    return (await adapter.store(objects, { signal })).stored.popcount();
  };
  {
    await using adapter = await openFs(config);
    assertEquals(await put(adapter, 0), 10);
  }
  const files = (await Array.fromAsync(Deno.readDir(basePath))).filter(({ isFile }) => isFile)
    .map(({ name }) => join(basePath, name));
  const touch = new Deno.Command("touch", { args: ["-d", "@9999999999999", ...files] });
  assert((await touch.output()).success);
  await Deno.remove(join(basePath, "tmp"), { recursive: true });
  await using adapter = await openFs(config);
  for (let first = 100; first < 300; first += 10) assertEquals(await put(adapter, first), 10);
  const listed = await Array.fromAsync(adapter.list?.({ signal }) ?? []);
  assertGreater(listed.length, 0);
  assert(listed.every(({ key }) => testKeys(10).every((old) => !old.equals(key))), "they left");
});
