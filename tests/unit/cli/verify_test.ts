import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { contentsOf, fillStore, l2, runForJson, runKvtier } from "../../support/cli.ts";
import { fileOf } from "../../support/fs_adapter.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const PAYLOAD_BYTES = 4096;
const FILE_BYTES = PAYLOAD_BYTES + 64;

async function flipBit(path: string, bit: number): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ 1 << (bit & 7);
  await Deno.writeFile(path, bytes);
}

/** Ways to damage a file. */
const DAMAGES: readonly ((path: string) => Promise<void>)[] = [
  (path) => flipBit(path, 0),
  (path) => flipBit(path, PAYLOAD_BYTES * 8 - 1),
  (path) => flipBit(path, PAYLOAD_BYTES * 8),
  (path) => flipBit(path, FILE_BYTES * 8 - 1),
  async (path) => Deno.writeFile(path, (await Deno.readFile(path)).fill(0, 512, 1024)),
  (path) => Deno.writeFile(path, new Uint8Array(FILE_BYTES)),
  (path) => Deno.writeFile(path, crypto.getRandomValues(new Uint8Array(FILE_BYTES))),
  (path) => Deno.truncate(path, FILE_BYTES - 1),
  (path) => Deno.truncate(path, PAYLOAD_BYTES),
  (path) => Deno.truncate(path, 1),
  (path) => Deno.truncate(path, 0),
  (path) => Deno.writeFile(path, new Uint8Array(1), { append: true }),
];

Deno.test("kvtier verify tells damaged, foreign and unreadable apart, and repairs the damaged", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const config = { type: "fs", "base_path": path };
  const intact = testKeys(3);
  const damaged = testKeys(DAMAGES.length, 10);
  const [swapped, huge] = testKeys(2, 100);
  if (swapped === undefined || huge === undefined) throw new Error("no keys");
  await fillStore(config, [...intact, ...damaged, swapped, huge], PAYLOAD_BYTES);
  for (const [i, key] of damaged.entries()) await DAMAGES[i]?.(fileOf(path, key));
  await Deno.copyFile(fileOf(path, testKey(0)), fileOf(path, swapped));
  // A sparse file of 2 TiB.
  await Deno.truncate(fileOf(path, huge), 2 ** 41);

  const counts = { intact: 3, damaged: DAMAGES.length, foreign: 1, unreadable: 1, gone: 0 };
  const first = await runForJson(["verify", ...l2(config)]);
  assertEquals(first.code, 1);
  const bytes = 3 * FILE_BYTES;
  const fields = { type: "fs", ...counts, bytes, problems: [] };
  assertEquals(first.json.adapters, [{ ...fields, removed: 0 }]);
  const states = Object.groupBy<string, { key: string; state: string }>(
    first.json.objects,
    ({ state }) => state,
  );
  assertEquals(states.damaged?.map(({ key }) => key).sort(), damaged.map(({ id }) => id).sort());
  assertEquals(states.foreign?.map(({ key }) => key), [swapped.id]);
  assertEquals(states.unreadable?.map(({ key }) => key), [huge.id]);

  const second = await runKvtier(["verify", ...l2(config), "--repair"]);
  assertMatch(
    second.out,
    /17 objects: 3 intact \(12\.2 KiB\), 12 damaged, 1 foreign, 1 unreadable; 12 removed\n$/,
  );
  assertEquals(second.code, 1);
  await Deno.remove(fileOf(path, huge));
  const third = await runKvtier(["verify", ...l2(config)]);
  assertEquals(third.code, 0);
  assertMatch(third.out, /^foreign .*: key\n4 objects: 3 intact/);
  assertEquals([...(await contentsOf(config)).keys()].sort(), intact.map(({ id }) => id).sort());
});

Deno.test("kvtier verify keeps what a wrong key cannot decode, and finds damage with the right one", async () => {
  await using directory = await tempDirectory();
  const keyFile = (name: string) => join(directory.path, name);
  for (const name of ["right", "wrong"]) {
    await Deno.writeFile(keyFile(name), crypto.getRandomValues(new Uint8Array(32)), {
      mode: 0o600,
    });
  }
  const config = (key: string) => ({
    type: "fs",
    "base_path": join(directory.path, "kv"),
    serde: { type: "aesgcm", "master_key_path": keyFile(key) },
  });
  await fillStore(config("right"), testKeys(5));
  assertEquals((await runKvtier(["verify", ...l2(config("right"))])).code, 0);
  const wrong = await runForJson(["verify", ...l2(config("wrong")), "--repair"]);
  const { foreign, damaged, removed } = wrong.json.adapters[0];
  assertEquals([foreign, damaged, removed], [5, 0, 0]);
  assertEquals((await contentsOf(config("right"))).size, 5);
  await flipBit(fileOf(join(directory.path, "kv"), testKey(2)), 5_000);
  const { out } = await runKvtier(["verify", ...l2(config("right")), "--repair"]);
  assertMatch(
    out,
    /^damaged .*: payload-checksum\n5 objects: 4 intact .* 1 damaged, 0 .*; 1 removed\n$/,
  );
});

Deno.test("kvtier verify refuses adapters whose objects it cannot verify", async () => {
  await using directory = await tempDirectory();
  const raw = { "file_layout": "lmcache", "accept_unsealed": true };
  const { code, err } = await runKvtier([
    "verify",
    ...l2({ type: "fs", "base_path": directory.path, ...raw }),
  ]);
  assertStringIncludes(err, "an adapter whose objects have trailers");
  assertEquals(code, 2);
});
