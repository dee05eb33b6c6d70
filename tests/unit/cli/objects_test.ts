import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { contentsOf, fillStore, l2, runForJson, runKvtier } from "../../support/cli.ts";
import { fileOf } from "../../support/fs_adapter.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const DAY_MS = 86_400_000;
/** Names with what terminals obey, as far as keys may have it. */
const HOSTILE = { model: "a\u202eb%s/../;$(x)", cacheSalt: "s@t \u2028'\"<b>" };

/** A directory with objects of two models and salts, one of them used 40 days ago. */
async function filled() {
  const directory = await tempDirectory();
  const config = { type: "fs", "base_path": directory.path };
  const keys = [
    ...testKeys(3),
    testKey(3, { model: "old" }),
    testKey(4, { cacheSalt: "tenant" }),
    testKey(5, HOSTILE),
  ];
  await fillStore(config, keys);
  const longAgo = new Date(Date.now() - 40 * DAY_MS);
  await Deno.utime(fileOf(directory.path, testKey(3, { model: "old" })), longAgo, longAgo);
  return { directory, config, keys, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

Deno.test("kvtier ls chooses objects by model, salt, age and size", async () => {
  await using store = await filled();
  const options = l2(store.config);
  const idsFor = async (...choice: string[]): Promise<string[]> => {
    const { json, code } = await runForJson(["ls", ...options, ...choice]);
    assertEquals(code, 0);
    return json.objects.map(({ key }: { key: string }) => key).sort();
  };
  const ids = (...indices: number[]) => indices.map((i) => store.keys[i]?.id ?? "").sort();
  assertEquals(await idsFor(), ids(0, 1, 2, 3, 4, 5));
  assertEquals(await idsFor("--model", "old"), ids(3));
  assertEquals(await idsFor("--salt", "tenant"), ids(4));
  assertEquals(await idsFor("--salt=", "--model", "test/model"), ids(0, 1, 2));
  assertEquals(await idsFor("--salt", HOSTILE.cacheSalt), ids(5));
  assertEquals(await idsFor("--older-than", "30d"), ids(3));
  assertEquals(await idsFor("--newer-than=1h", "--salt="), ids(0, 1, 2));
  assertEquals(await idsFor("--min-size", "1MiB"), []);
  assertEquals((await idsFor("--limit", "2")).length, 2);
  assertEquals((await runForJson(["ls", ...options, "--model", "none"])).json, {
    objects: [],
    adapters: [{ type: "fs", objects: 0, bytes: 0, problems: [] }],
  });
});

Deno.test("kvtier ls prints names without what a terminal obeys", async () => {
  await using store = await filled();
  const { out } = await runKvtier(["ls", ...l2(store.config), "--model", HOSTILE.model]);
  assertMatch(out, /^ 1\.0\d KiB {2}20\d\d-[-\d]+T[:\d]+ {2}a\\u\{202e\}b%s.*\\u\{2028\}/);
  assertEquals(out.trimEnd().split("\n").length, 2);
});

Deno.test("kvtier stat counts by model, salt, age and size", async () => {
  await using store = await filled();
  const groups = async (by: string): Promise<unknown> => {
    const { json } = await runForJson(["stat", ...l2(store.config), "--by", by]);
    assertEquals(json.adapters[0].objects, 6);
    const rows = json.adapters[0].groups;
    return Object.fromEntries(rows.map(({ name, objects }: Record<string, unknown>) => [
      name,
      objects,
    ]));
  };
  assertEquals(await groups("model"), { "test/model": 4, old: 1, [HOSTILE.model]: 1 });
  assertEquals(await groups("salt"), { "(no salt)": 4, tenant: 1, [HOSTILE.cacheSalt]: 1 });
  assertEquals(await groups("age"), { "used within 1 hour": 5, "used within 90 days": 1 });
  assertEquals(await groups("size"), { "up to 2.00 KiB": 6 });
  const { out } = await runKvtier(["stat", ...l2(store.config), "--top", "1"]);
  assertMatch(
    out,
    /^test\/model: 4 objects, 4\.16 KiB, last used 20.*\nand 2 more groups\nAll: 6 /,
  );
});

Deno.test("kvtier forget removes exactly what it names, and counts it", async () => {
  await using store = await filled();
  const options = l2(store.config);
  const [first, second] = store.keys;
  const dry = await runKvtier(["forget", ...options, "--salt", "tenant", "--dry-run"]);
  assertMatch(dry.out, /^Would remove 1 objects, 1\.04 KiB\n$/);
  assertEquals((await contentsOf(store.config)).size, 6);
  const { json, code } = await runForJson(["forget", ...options, "--salt", "tenant"]);
  const counts = { isDryRun: false, isComplete: true, problems: [] };
  assertEquals(json, { adapters: [{ type: "fs", objects: 1, bytes: 1064, ...counts }] });
  assertEquals(code, 0);
  const file = fileOf("", second ?? testKey(1));
  const byKey = ["forget", ...options, "--key", first?.id ?? "", "--key", file];
  assertEquals((await runKvtier(byKey)).out, "Removed 2 objects, 2.08 KiB\n");
  assertEquals(await runKvtier(byKey), { code: 0, out: "Removed 0 objects\n", err: "" });
  await runKvtier(["forget", ...options, "--model", HOSTILE.model]);
  const left = [...(await contentsOf(store.config)).keys()].sort();
  assertEquals(left, [store.keys[2]?.id, store.keys[3]?.id].sort());
});

Deno.test("kvtier forget does not claim to be complete where keys are unknown", async () => {
  await using store = await filled();
  const hashed = testKey(9, { model: "m".repeat(256), cacheSalt: "secret" });
  await fillStore(store.config, [hashed]);
  await Deno.truncate(fileOf(store.directory.path, hashed), 700);
  const { code, err } = await runKvtier(["forget", ...l2(store.config), "--salt", "secret"]);
  assertEquals(code, 1);
  assertStringIncludes(err, "1 objects do not tell their keys");
});

Deno.test("kvtier forget, ls and stat refuse wrong values", async () => {
  const adapter = l2({ type: "mock", "max_size_gb": 1, "mock_bandwidth_gb": 10 });
  const wrong: [string[], string][] = [
    [["forget"], '--key, or else --model, --salt or both: received "none of them"'],
    [["forget", "--key", "x", "--salt", "y"], 'received "all of them"'],
    [["forget", "--key", "m@0@0@12@"], "--key: expected a key as ls prints it"],
    [["ls", "--model", "a@b"], "--model: expected Model name must not contain '@'"],
    [["ls", "--older-than", "soon"], "--older-than: expected an age, like 30d"],
    [["ls", "--min-size", "1 XB"], "--min-size: expected a size"],
    [["ls", "--limit", "0"], "--limit: expected an integer of at least 1"],
    [["stat", "--by", "colour"], "--by: expected one of model, salt, age, size"],
  ];
  for (const [args, message] of wrong) {
    const { code, err } = await runKvtier([...args, ...adapter]);
    assertStringIncludes(err, message);
    assertEquals(code, 2);
  }
});
