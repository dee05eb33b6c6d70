import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { walk } from "@std/fs";
import {
  fileFingerprint,
  SnapshotCache,
  type SnapshotCacheOptions,
} from "../../../../src/engine/snapshot/mod.ts";
import { encodeManifest } from "../../../../src/engine/snapshot/manifest.ts";
import type { ObjectLayout } from "../../../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../../../src/keys/object_key.ts";
import { HostDevice } from "../../../../src/memory/host_device.ts";
import type { TieredCacheOptions } from "../../../../src/cache_options.ts";
import { sha256 } from "../../../../src/base/digest.ts";
import { TieredCache } from "../../../../src/tiered_cache.ts";
import { seededRandom } from "../../../support/random.ts";
import { testKeys, testLayout } from "../../../support/objects.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";

const MIB = 2 ** 20;
const CHUNK = 8;

async function openCache(options: TieredCacheOptions = {}): Promise<TieredCache> {
  const l1 = { capacityBytes: 32 * MIB };
  return await TieredCache.open({ device: new HostDevice(), l1, ...options });
}

function openSnapshots(
  cache: TieredCache,
  options: Partial<SnapshotCacheOptions> = {},
): SnapshotCache {
  const defaults = { model: "llama", fingerprint: "weights 1; engine 1", chunkTokens: CHUNK };
  return new SnapshotCache(cache, { ...defaults, ...options });
}

/** Bytes of a state that follow from a seed. */
function stateOf(seed: number, byteLength: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(byteLength / 4));
  const random = seededRandom(seed);
  for (let i = 0; i < words.length; i++) words[i] = random.below(2 ** 32);
  return new Uint8Array(words.buffer, 0, byteLength);
}

function tokensOf(seed: number, count: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => random.below(1000));
}

Deno.test("SnapshotCache: states of any length are restored exactly", async () => {
  await using cache = await openCache();
  const snapshots = openSnapshots(cache);
  for (const [seed, byteLength] of [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 12_345].entries()) {
    const tokens = tokensOf(seed, 3 * CHUNK + 2);
    const state = stateOf(seed, byteLength);
    assert(await snapshots.put(tokens, state));
    const found = await snapshots.match([...tokens, 1, 2, 3]);
    assertEquals(found?.tokens, tokens.length);
    assertEquals(found?.bytes, state);
  }
});

Deno.test("SnapshotCache: the longest saved prefix of the tokens is found", async () => {
  await using cache = await openCache();
  const snapshots = openSnapshots(cache);
  const tokens = tokensOf(1, 5 * CHUNK);
  const lengths = [3, 5, CHUNK, CHUNK + 1, 3 * CHUNK + 4, 3 * CHUNK + 6];
  for (const length of lengths) {
    assert(await snapshots.put(tokens.slice(0, length), stateOf(length, 1000 + length)));
  }
  for (let length = 0; length <= tokens.length; length++) {
    const found = await snapshots.match(tokens.slice(0, length));
    const expected = lengths.findLast((saved) => saved <= length);
    assertEquals(found?.tokens, expected, `${length} tokens`);
    if (expected !== undefined) assertEquals(found?.bytes, stateOf(expected, 1000 + expected));
  }
  const fork = [...tokens.slice(0, 3 * CHUNK + 5), 5000, 5001];
  assertEquals((await snapshots.match(fork))?.tokens, 3 * CHUNK + 4);
  assertEquals(await snapshots.match([5000, ...tokens]), undefined);
});

Deno.test("SnapshotCache: another model, engine, tenant or chunk size finds nothing", async () => {
  await using cache = await openCache();
  const tokens = tokensOf(2, CHUNK + 3);
  await openSnapshots(cache).put(tokens, stateOf(2, 1000), { salt: "alice" });
  const found = async (
    options: Partial<SnapshotCacheOptions>,
    salt: string,
  ): Promise<number | undefined> =>
    (await openSnapshots(cache, options).match(tokens, { salt }))?.tokens;
  assertEquals(await found({}, "alice"), tokens.length);
  assertEquals(await found({}, "bob"), undefined);
  assertEquals(await found({ model: "qwen" }, "alice"), undefined);
  assertEquals(await found({ fingerprint: "weights 1; engine 2" }, "alice"), undefined);
  assertEquals(await found({ chunkTokens: CHUNK + 1 }, "alice"), undefined);
  await cache.forget({ salt: "alice" });
  assertEquals(await found({}, "alice"), undefined);
});

Deno.test("SnapshotCache: files are found by another process as a whole or not at all", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: `${directory.path}/kv` }];
  const tokens = tokensOf(3, 2 * CHUNK);
  const state = stateOf(3, 3 * MIB + 5);
  const path = `${directory.path}/state.bin`;
  await Deno.writeFile(path, state);
  {
    await using cache = await openCache({ l2 });
    assert(await openSnapshots(cache).putFile(tokens, path));
  }
  await using cache = await openCache({ l2 });
  const snapshots = openSnapshots(cache);
  const target = `${directory.path}/back.bin`;
  assertEquals(await snapshots.matchFile([1, ...tokens], target), 0);
  await assertRejects(() => Deno.stat(target), Deno.errors.NotFound);
  assertEquals(await snapshots.matchFile([...tokens, 1], target), tokens.length);
  assertEquals(await Deno.readFile(target), state);
  await assertRejects(() => snapshots.matchFile(tokens, `${directory.path}/none/back.bin`), Error);
  const names = await Array.fromAsync(Deno.readDir(directory.path), ({ name }) => name);
  assertEquals(names.sort(), ["back.bin", "kv", "state.bin"]);
});

Deno.test("SnapshotCache: with a damaged or missing part, a shorter state is found", async () => {
  for (const kind of ["damaged", "gone"]) {
    await using directory = await tempDirectory();
    const l2 = [{ type: "fs", base_path: directory.path }];
    const tokens = tokensOf(4, 4 * CHUNK);
    const short = stateOf(4, 1000);
    {
      await using cache = await openCache({ l2 });
      const snapshots = openSnapshots(cache);
      await snapshots.put(tokens.slice(0, CHUNK + 1), short);
      await cache.flush();
      const before = new Set(await objectFiles(directory.path));
      await snapshots.put(tokens, stateOf(5, 3 * MIB));
      await cache.flush();
      const parts = (await objectFiles(directory.path)).filter((path) => !before.has(path));
      const sizes = await Promise.all(parts.map(async (path) => (await Deno.stat(path)).size));
      const part = parts[sizes.findIndex((size) => size > MIB)] as string;
      if (kind === "gone") await Deno.remove(part);
      else {
        const bytes = await Deno.readFile(part);
        bytes[1000] = (bytes[1000] ?? 0) ^ 1;
        await Deno.writeFile(part, bytes);
      }
    }
    await using cache = await openCache({ l2 });
    const found = await openSnapshots(cache).match(tokens);
    assertEquals(found?.tokens, CHUNK + 1, kind);
    assertEquals(found?.bytes, short);
  }
});

async function objectFiles(directory: string): Promise<string[]> {
  const entries = await Array.fromAsync(walk(directory, { exts: [".data"] }));
  return entries.map(({ path }) => path);
}

Deno.test("SnapshotCache: a state can be larger than L1", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: directory.path }];
  await using cache = await openCache({ l2, l1: { capacityBytes: 8 * MIB } });
  const snapshots = openSnapshots(cache);
  const tokens = tokensOf(6, CHUNK);
  const state = stateOf(6, 21 * MIB + 1);
  assert(await snapshots.put(tokens, state));
  const skipped = { "out-of-memory": 0, "quota-exceeded": 0, "device-lost": 0 };
  assertEquals(cache.reportStatus().skippedWrites, skipped, "what waited for room was not skipped");
  assertEquals((await snapshots.match(tokens))?.bytes, state);
});

Deno.test("SnapshotCache: all parts of a state that does not fit are counted", async () => {
  await using cache = await openCache({ l1: { capacityBytes: 4 * MIB } });
  const held = cache.reserveWrite(testKeys(4), testLayout(MIB));
  assertEquals(held.map(({ status }) => status), Array(4).fill("success"));
  assertEquals(await openSnapshots(cache).put(tokensOf(6, CHUNK), stateOf(6, 3 * MIB)), false);
  assertEquals(cache.reportStatus().skippedWrites["out-of-memory"], 4, "3 parts and a manifest");
});

Deno.test("SnapshotCache: a state that does not fit is reported and never found in part", async () => {
  await using cache = await openCache({ l1: { capacityBytes: 4 * MIB } });
  const snapshots = openSnapshots(cache);
  const tokens = tokensOf(7, CHUNK);
  assertEquals(await snapshots.put(tokens, stateOf(7, 6 * MIB)), false);
  assertEquals(await snapshots.match(tokens), undefined);
});

Deno.test("SnapshotCache: each new state of a growing sequence is found, however many there are", async () => {
  await using cache = await openCache();
  const snapshots = openSnapshots(cache, { chunkTokens: 64 });
  const tokens = tokensOf(10, 20);
  for (let length = 1; length <= tokens.length; length++) {
    const turn = tokens.slice(0, length);
    assert(await snapshots.put(turn, stateOf(length, 100)));
    const found = await snapshots.match(turn);
    assertEquals([found?.tokens, found?.bytes], [length, stateOf(length, 100)]);
  }
  // The newest of them are kept.
  for (let length = 13; length <= 20; length++) {
    assertEquals((await snapshots.match(tokens.slice(0, length)))?.tokens, length);
  }
});

Deno.test("SnapshotCache: a state is saved anew if a part of the one before is gone", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: directory.path }];
  const tokens = tokensOf(11, CHUNK + 1);
  {
    await using cache = await openCache({ l2 });
    await openSnapshots(cache).put(tokens, stateOf(11, 2 * MIB));
    await cache.flush();
    for (const path of await objectFiles(directory.path)) {
      if ((await Deno.stat(path)).size > MIB) await Deno.remove(path);
    }
  }
  await using cache = await openCache({ l2 });
  const snapshots = openSnapshots(cache);
  assertEquals(await snapshots.match(tokens), undefined);
  // Engines that compute the same tokens again seldom get the same bits.
  assert(await snapshots.put(tokens, stateOf(12, 2 * MIB)));
  assertEquals((await snapshots.match(tokens))?.bytes, stateOf(12, 2 * MIB));
});

Deno.test("SnapshotCache: a manifest may claim any size", async () => {
  await using cache = await openCache();
  let written: [readonly ObjectKey[], ObjectLayout] | undefined;
  const reserve = cache.reserveWrite.bind(cache);
  cache.reserveWrite = (keys, layout, countSkipped) => {
    written = [keys, layout];
    return reserve(keys, layout, countSkipped);
  };
  const snapshots = openSnapshots(cache);
  await snapshots.put([1, 2, 3], stateOf(13, 1));
  assert(written !== undefined);
  const manifest = written;
  const tail = [1, 2, 3];
  for (const byteLength of [2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    for (const digest of [new Uint8Array(32), sha256(stateOf(13, 1))]) {
      cache.clearL1();
      // One part of it is there.
      await snapshots.put(tokensOf(13, CHUNK), stateOf(13, 1));
      const [reservation] = reserve(...manifest);
      assert(reservation?.status === "success");
      const { staged } = reservation;
      cache.device.upload(staged.range, [encodeManifest({ digest, byteLength, tail })]);
      cache.finishWrite([staged]);
      assertEquals(await snapshots.match([1, 2, 3, 4]), undefined, `${byteLength}`);
    }
  }
});

Deno.test("SnapshotCache: the event loop turns while a state is saved and found", async () => {
  await using cache = await openCache();
  const snapshots = openSnapshots(cache);
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  await snapshots.put([1, 2], stateOf(14, 4 * MIB));
  const before = turns;
  assert(before > 0);
  await snapshots.match([1, 2]);
  clearInterval(timer);
  assert(turns > before);
});

Deno.test("SnapshotCache: a state that is saved twice is stored once", async () => {
  await using cache = await openCache();
  const snapshots = openSnapshots(cache);
  const tokens = tokensOf(8, CHUNK);
  await snapshots.put(tokens, stateOf(8, 2 * MIB));
  const { totalObjectCount } = cache.reportStatus().l1;
  await snapshots.put(tokens, stateOf(8, 2 * MIB));
  assertEquals(cache.reportStatus().l1.totalObjectCount, totalObjectCount);
});

Deno.test("SnapshotCache rejects invalid arguments", async () => {
  await using cache = await openCache();
  assertThrows(() => openSnapshots(cache, { fingerprint: "" }), TypeError, "fingerprint");
  assertThrows(() => openSnapshots(cache, { chunkTokens: 0 }), RangeError, "chunkTokens");
  assertThrows(() => openSnapshots(cache, { chunkTokens: 5000 }), RangeError, "chunkTokens");
  const snapshots = openSnapshots(cache);
  await assertRejects(() => snapshots.put([], new Uint8Array(1)), RangeError, "at least 1");
  await assertRejects(() => snapshots.put([-1], new Uint8Array(1)), RangeError, "-1");
  await assertRejects(() => snapshots.putFile([1], "/no/such/file"), Error);
  const stop = AbortSignal.abort(new Error("client is gone"));
  await assertRejects(() => snapshots.match([1], { signal: stop }), Error, "client is gone");
});

Deno.test("fileFingerprint() is the SHA-256 of a file", async () => {
  await using directory = await tempDirectory();
  const path = `${directory.path}/model.gguf`;
  const bytes = stateOf(9, MIB + 77);
  await Deno.writeFile(path, bytes);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  assertEquals(await fileFingerprint(path), digest.toHex());
});

Deno.test("an undefined salt is rejected by all calls", async () => {
  await using cache = await TieredCache.open({ device: new HostDevice() });
  const snapshots = openSnapshots(cache);
  const lost = { salt: undefined } as unknown as { salt: string };
  await assertRejects(() => snapshots.match([1, 2], lost), TypeError, "must have a value for salt");
  const put = () => snapshots.put([1, 2], new Uint8Array(4), lost);
  await assertRejects(put, TypeError, "must have a value for salt");
  const mistyped = { Salt: "a" } as object;
  await assertRejects(() => snapshots.match([1, 2], mistyped), TypeError, "did you mean salt?");
});
