import { assertEquals } from "@std/assert";
import { LockedObjects } from "../../../../adapters/_fs/locked_objects.ts";
import { ObjectPaths } from "../../../../adapters/_fs/object_paths.ts";
import { testKey } from "../../../support/objects.ts";
import { seededRandom } from "../../../support/random.ts";

/** Paths that count their computations. */
class CountingPaths extends ObjectPaths {
  spelled = 0;

  override pathOf(key: Parameters<ObjectPaths["pathOf"]>[0]): string {
    this.spelled++;
    return super.pathOf(key);
  }
}

const options = { basePath: "/kv", layout: "kvtier", shards: 1 } as const;

Deno.test("LockedObjects: a file is locked as long as its object, also with a hashed name", () => {
  const paths = new ObjectPaths(options);
  const locks = new LockedObjects(paths);
  const keys = Array.from(
    { length: 6 },
    (_, n) =>
      n % 2 === 0 ? testKey(n) : testKey(n, { model: "m".repeat(256), cacheSalt: "s".repeat(100) }),
  );
  const counts = new Map(keys.map(({ id }) => [id, 0]));
  const random = seededRandom(11);
  for (let step = 0; step < 2000; step++) {
    const key = random.pick(keys);
    const count = counts.get(key.id) ?? 0;
    if (random.chance(0.45)) {
      locks.lock(key);
      counts.set(key.id, count + 1);
    } else {
      locks.unlock(key);
      counts.set(key.id, Math.max(0, count - 1));
    }
    const asked = random.pick(keys);
    const isLocked = (counts.get(asked.id) ?? 0) > 0;
    assertEquals(locks.has(asked), isLocked);
    if (random.chance(0.3)) assertEquals(locks.hasFile(paths.pathOf(asked)), isLocked);
  }
});

Deno.test("LockedObjects: no path is computed before an eviction asks", () => {
  const paths = new CountingPaths(options);
  const locks = new LockedObjects(paths);
  const keys = Array.from({ length: 100 }, (_, n) => testKey(n));
  for (const key of keys) locks.lock(key);
  for (const key of keys) locks.unlock(key);
  assertEquals(locks.hasFile("/kv/00/any.data"), false);
  assertEquals(paths.spelled, 0);
});
