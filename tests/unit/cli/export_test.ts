import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { L2Config } from "../../../src/l2/adapter_config.ts";
import { PartialFile } from "../../../src/cli/partial_file.ts";
import {
  contentsOf,
  fillStore,
  l2,
  openGuard,
  runForJson,
  runKvtier,
  testHost,
} from "../../support/cli.ts";
import { fileOf } from "../../support/fs_adapter.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { redisTest, startRedis } from "../../support/redis_server.ts";
import { startS3 } from "../../support/s3_server.ts";
import { sealedObject } from "../../support/sealed_objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { runCommand } from "../../../src/cli/command.ts";
import { kvtier } from "../../../src/cli/commands.ts";

/** A place for exports, and a store of `keys`. */
async function filled(keys = testKeys(20)) {
  const directory = await tempDirectory();
  const config: L2Config = { type: "fs", "base_path": join(directory.path, "kv") };
  await fillStore(config, keys);
  const file = join(directory.path, "kv.export");
  const store = (name: string): L2Config => ({
    type: "fs",
    "base_path": join(directory.path, name),
  });
  return { config, file, store, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

redisTest(
  "export and import carry objects between fs, resp, s3 and file_pool, bytes equal",
  async () => {
    const long = { model: "m".repeat(256), cacheSalt: "\u202e s@%/../" };
    const keys = [...testKeys(40), testKey(1, long), testKey(2, { ...long, cacheSalt: "" })];
    await using place = await filled(keys);
    await using redis = await startRedis();
    await using server = await startS3();
    const stores: readonly L2Config[] = [
      place.config,
      { type: "resp", host: "127.0.0.1", port: redis.port, "chunk_bytes": 512 },
      { type: "s3", ...server.config },
      {
        type: "file_pool",
        "pool_size": 400,
        "backend_params": { "file_path": `${place.file}.pool`, "slot_bytes": 8192 },
      },
      place.store("last"),
    ];
    const contents = await contentsOf(place.config);
    assertEquals(contents.size, keys.length);
    let from = place.config;
    for (const to of stores.slice(1)) {
      const file = `${place.file}.${from.type}`;
      const exported = await runForJson(["export", file, ...l2(from)]);
      assertEquals([exported.code, exported.json.objects, exported.err], [0, keys.length, ""]);
      const imported = await runForJson(["import", file, ...l2(to)]);
      const { stored, problems } = imported.json.adapters[0];
      assertEquals([imported.code, stored, problems], [0, keys.length, []]);
      from = to;
    }
    assertEquals(await contentsOf(from), contents);
  },
);

Deno.test("export - and import - are a pipe", async () => {
  await using place = await filled();
  const exporting = testHost();
  assertEquals(
    await runCommand("kvtier", kvtier, ["export", "-", ...l2(place.config)], exporting.host),
    0,
  );
  assertMatch(exporting.texts.err, /^20 objects, 20\.8 KiB\n$/);
  const bytes = new Uint8Array(await new Blob(exporting.bytes as BlobPart[]).arrayBuffer());
  let done = 0;
  const read = (target: Uint8Array): Promise<number | null> => {
    const chunk = bytes.subarray(done, done + Math.min(777, target.byteLength));
    target.set(chunk);
    done += chunk.byteLength;
    return Promise.resolve(chunk.byteLength || null);
  };
  assertEquals((await runKvtier(["import", "-", ...l2(place.store("copy"))], { read })).code, 0);
  assertEquals(await contentsOf(place.store("copy")), await contentsOf(place.config));
});

Deno.test("an export that is truncated or edited anywhere is refused with the place", async () => {
  await using place = await filled(testKeys(4));
  await runKvtier(["export", place.file, ...l2(place.config)]);
  const whole = await Deno.readFile(place.file);
  const other = `${place.file}.other`;
  const refusal = async (bytes: Uint8Array): Promise<string> => {
    await Deno.writeFile(other, bytes);
    const { code, err } = await runKvtier(["import", other, "--dry-run"]);
    assert(code !== 0, "taken for whole");
    return err;
  };
  for (let length = 0; length < whole.byteLength; length += 97) {
    assertMatch(
      await refusal(whole.subarray(0, length)),
      /truncated at byte \d+, after [0-3] |objects/,
    );
  }
  assertMatch(await refusal(whole.subarray(0, -1)), /truncated at byte \d+, after 4 objects/);
  for (let at = 0; at < whole.byteLength; at += 53) {
    const edited = whole.slice();
    edited[at] = (edited[at] ?? 0) ^ 4;
    assertMatch(
      await refusal(edited),
      /damaged at byte \d+, after \d objects|truncated|a file that export wrote/,
    );
  }
  assertStringIncludes(await refusal(new Uint8Array([...whole, 0])), "bytes follow the end");
  assertStringIncludes(
    await refusal(new TextEncoder().encode("hello, world")),
    "a file that export wrote",
  );
  // The second object removed: what is left has intact records.
  const { json } = await runForJson(["import", place.file, "--dry-run"]);
  assertEquals([json.objects, json.isComplete], [4, true]);
  const starts = [...positionsOf(whole, "OBJ ")];
  assertEquals(starts.length, 4);
  const [a = 0, b = 0, c = 0] = starts;
  const without = new Uint8Array([...whole.subarray(0, b), ...whole.subarray(c)]);
  assertStringIncludes(await refusal(without), `damaged at byte ${b}, after 1 objects`);
  const swapped = new Uint8Array([
    ...whole.subarray(0, a),
    ...whole.subarray(b, c),
    ...whole.subarray(a, b),
    ...whole.subarray(c),
  ]);
  assertStringIncludes(await refusal(swapped), `damaged at byte ${a}, after 0 objects`);
});

function* positionsOf(bytes: Uint8Array, tag: string): Generator<number> {
  const text = new TextDecoder("latin1").decode(bytes);
  for (let at = text.indexOf(tag); at >= 0; at = text.indexOf(tag, at + 1)) yield at;
}

Deno.test("import keeps the objects before a fault, and continues with a whole file", async () => {
  await using place = await filled();
  await runKvtier(["export", place.file, ...l2(place.config)]);
  const whole = await Deno.readFile(place.file);
  const target = place.store("copy");
  await Deno.writeFile(place.file, whole.subarray(0, whole.byteLength / 2));
  const half = await runKvtier(["import", place.file, ...l2(target)]);
  assertEquals(half.code, 1);
  assertMatch(half.err, /truncated at byte \d+, after 9 objects/);
  await Deno.writeFile(place.file, whole);
  const { json } = await runForJson(["import", place.file, ...l2(target)]);
  const { stored, present } = json.adapters[0];
  assertEquals([stored, present], [11, 9]);
  assertEquals(await contentsOf(target), await contentsOf(place.config));
});

Deno.test("export leaves damaged objects out, and takes them from the next adapter", async () => {
  const keys = testKeys(6);
  await using place = await filled(keys);
  const second = place.store("second");
  await fillStore(second, [...keys.slice(0, 1), testKey(77)]);
  const path = String(place.config.base_path);
  for (const key of keys.slice(0, 2)) await Deno.truncate(fileOf(path, key), 500);
  const { code, json, err } = await runForJson([
    "export",
    place.file,
    ...l2(place.config),
    ...l2(second),
  ]);
  assertEquals([code, json.objects], [0, 6]);
  assertEquals(
    json.adapters.map(({ objects, damaged }: Record<string, number>) => [objects, damaged]),
    [
      [4, 2],
      [2, 0],
    ],
  );
  assertEquals(err.match(/^left out: .*: damaged: magic$/gm)?.length, 2);
  // They stay where they are.
  assertEquals((await Deno.stat(fileOf(path, keys[0] ?? testKey(0)))).size, 500);
});

Deno.test("export refuses to replace a file, another selection, and a second writer", async () => {
  await using place = await filled();
  const args = ["export", place.file, ...l2(place.config)];
  const start = { selection: "all objects", replaces: false, restarts: false, onFound() {} };
  {
    using other = await PartialFile.open(place.file, start);
    await other.flush();
    const { code, err } = await runKvtier(args);
    assertEquals(code, 1);
    assertStringIncludes(err, "is being written by another process");
  }
  const other = await runKvtier([...args, "--model", "test/model"]);
  assertEquals(other.code, 2);
  assertStringIncludes(other.err, "those of the interrupted export (all objects), or --restart");
  assertEquals((await runKvtier([...args, "--model", "test/model", "--restart"])).code, 0);
  const again = await runKvtier(args);
  assertEquals(again.code, 2);
  assertStringIncludes(again.err, "a file that does not exist yet, or --force");
  assertEquals((await runKvtier([...args, "--force"])).code, 0);
  assertEquals(((await Deno.stat(place.file)).mode ?? 0) & 0o777, 0o600);
  const terminal = await runKvtier(["export", "-", ...l2(place.config)], { isOutTerminal: true });
  assertEquals(terminal.code, 2);
});

Deno.test("an interrupted export continues with what it has, whatever its last bytes are", async () => {
  await using place = await filled();
  const { file } = place;
  const start = { selection: "all objects", replaces: false, restarts: false, onFound() {} };
  {
    using partial = await PartialFile.open(file, start);
    for (const key of testKeys(7)) await partial.writer.add(sealedObject(key, testLayout(1000)));
    await partial.flush();
  }
  const bytes = await Deno.readFile(`${file}.partial`);
  for (
    const [length, resumed] of [[bytes.byteLength, 7], [bytes.byteLength - 3, 6], [30, 0], [0, 0]]
  ) {
    await Deno.writeFile(`${file}.partial`, bytes.subarray(0, length));
    const { json, code } = await runForJson(["export", file, "--force", ...l2(place.config)]);
    assertEquals([code, json.resumed, json.objects], [0, resumed, 20]);
    const { json: read } = await runForJson(["import", file, "--dry-run"]);
    assertEquals([read.objects, read.isComplete], [20, true]);
  }
});

Deno.test("import counts what does not fit", async () => {
  await using place = await filled();
  await runKvtier(["export", place.file, ...l2(place.config)]);
  const pool = {
    type: "file_pool",
    "pool_size": 5,
    "backend_params": { "file_path": `${place.file}.pool`, "slot_bytes": 512 },
  };
  const { code, json } = await runForJson(["import", place.file, ...l2(pool)]);
  assertEquals([code, json.adapters[0].stored, json.adapters[0].failed], [1, 0, 20]);
  await using empty = await openGuard(pool);
  assertEquals((await Array.fromAsync(empty.guard.list())).length, 0);
});
