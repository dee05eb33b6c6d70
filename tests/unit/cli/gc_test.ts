import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { UseHistogram } from "../../../src/cli/use_histogram.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { fillStore, l2, runForJson, runKvtier } from "../../support/cli.ts";
import { fileOf, filesIn } from "../../support/fs_adapter.ts";
import { testKey } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const DAY_MS = 86_400_000;
const OBJECT_BYTES = 1064;

/** A directory with objects that were last used so many days ago; negative days are the future. */
async function filled(days: Readonly<Record<string, readonly number[]>>) {
  const directory = await tempDirectory();
  const { path } = directory;
  const config = { type: "fs", "base_path": path };
  const keys: [key: ObjectKey, days: number][] = Object.entries(days).flatMap(([model, ages]) =>
    ages.map((age, i): [ObjectKey, number] => [testKey(i, { model }), age])
  );
  await fillStore(config, keys.map(([key]) => key));
  for (const [key, age] of keys) {
    const time = new Date(Date.now() - age * DAY_MS);
    await Deno.utime(fileOf(path, key), time, time);
  }
  /** The days of the objects that are left. */
  const left = async (): Promise<number[]> => {
    // A listing is no use of the objects.
    const { json } = await runForJson(["ls", ...l2(config)]);
    const ids = new Set(json.objects.map(({ key }: { key: string }) => key));
    return keys.filter(([key]) => ids.has(key.id)).map(([, age]) => age);
  };
  return { path, config, left, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

Deno.test("kvtier gc removes models and objects that were not used for long", async () => {
  await using store = await filled({ old: [50, 40], mixed: [90, 1], future: [-9] });
  const args = ["gc", ...l2(store.config)];
  const dry = await runKvtier([...args, "--unused-models", "30d", "--dry-run"]);
  assertEquals(dry, { code: 0, out: "Would remove 2 objects, 2.08 KiB\n", err: "" });
  assertEquals(await store.left(), [50, 40, 90, 1, -9]);
  const { json } = await runForJson([...args, "--unused-models", "30d"]);
  assertEquals([json.adapters[0].unusedModels, json.adapters[0].objects], [["old"], 2]);
  assertEquals(await store.left(), [90, 1, -9]);
  await runKvtier([...args, "--max-age", "60d"]);
  assertEquals(await store.left(), [1, -9]);
});

Deno.test("kvtier gc removes the least recently used objects to a size", async () => {
  await using store = await filled({ a: [5, 3, 1], b: [6, 4, 2, 4] });
  const size = (objects: number): string[] => ["--max-size", String(objects * OBJECT_BYTES)];
  const args = ["gc", ...l2(store.config)];
  await runKvtier([...args, ...size(7)]);
  assertEquals((await store.left()).length, 7);
  await runKvtier([...args, ...size(6)]);
  assertEquals(await store.left(), [5, 3, 1, 4, 2, 4]);
  // One of two objects of the same age.
  await runKvtier([...args, ...size(4)]);
  assertEquals((await store.left()).sort(), [1, 2, 3, 4]);
  const { json } = await runForJson([...args, ...size(0)]);
  assertEquals(json.adapters[0].objects, 4);
  assertEquals(await store.left(), []);
});

Deno.test("kvtier verify and export leave the times of the last use as they are", async () => {
  await using store = await filled({ a: [50, 40], b: [90] });
  assertEquals((await runKvtier(["verify", ...l2(store.config)])).code, 0);
  assertEquals((await runKvtier(["export", `${store.path}.x`, ...l2(store.config)])).code, 0);
  await Deno.remove(`${store.path}.x`);
  await runKvtier(["gc", ...l2(store.config), "--max-age", "45d"]);
  assertEquals(await store.left(), [40]);
});

Deno.test("kvtier gc removes what killed writers left, and nothing of living ones", async () => {
  await using store = await filled({ a: [1] });
  const dead = "999999-0123456789abcdef";
  const old = new Date(Date.now() - 2 * DAY_MS);
  const leftovers = [`tmp/${dead}.lock`, ...["0", "1"].map((n) => `tmp/${dead}-${n}.tmp`)];
  for (const name of leftovers) {
    await Deno.mkdir(join(store.path, "tmp"), { recursive: true });
    await Deno.writeTextFile(join(store.path, name), "x".repeat(5_000));
    await Deno.utime(join(store.path, name), old, old);
  }
  await Deno.writeTextFile(join(store.path, "tmp/999999-fedcba9876543210-0.tmp"), "young");
  const { code, out } = await runKvtier(["gc", ...l2(store.config)]);
  assertMatch(out, /^Removed 2 leftovers, 16\.0 KiB\n$/);
  assertEquals(code, 0);
  const left = (await filesIn(store.path)).filter((name) => name.includes("999999"));
  assertEquals(left, ["tmp/999999-fedcba9876543210-0.tmp"]);
  assertEquals((await store.left()).length, 1);
});

Deno.test("a histogram of uses merges buckets, and cuts within a bucket", () => {
  const uses = new UseHistogram();
  for (let i = 0; i < 200_000; i++) uses.add(i * 5_000, 10);
  assertEquals(uses.bytes, 2_000_000);
  const { before, until, bytes } = uses.cut(1_000_000);
  // The first 100,000 objects hold these bytes.
  assertEquals(Math.floor(before / 5_000) * 10 + bytes <= 1_000_010, true);
  assertEquals(before < 500_000_000 && until >= 500_000_000, true);
});
