import { assert, assertEquals, assertGreater } from "@std/assert";
import { Worker } from "node:worker_threads";
import { ObjectWithTrailer } from "../../../src/adapter/object_to_seal.ts";
import { tailBytes, verifyObject } from "../../../src/adapter/object_trailer.ts";
import type { LoadOptions } from "../../../src/adapter/contract.ts";
import { IoWorkers } from "../../../src/base/io/io_workers.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { runChild } from "../../support/child.ts";
import { FaultyFiles } from "../../support/faulty_files.ts";
import {
  fileOf,
  objectFilesIn,
  openFileStore,
  temporaryFilesIn,
} from "../../support/fs_adapter.ts";
import { testBytes, testKey, testKeys, testLayout } from "../../support/objects.ts";
import { emptyObject, sealedObject } from "../../support/sealed_objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { waitUntil } from "../../support/wait_until.ts";

const layout = testLayout(30_000);
const call = { signal: new AbortController().signal };

/** An object whose trailer is not written yet, in shared memory or not. */
function openObject(key: ObjectKey, isShared: boolean): ObjectWithTrailer {
  const byteLength = layout.byteLength + tailBytes(key);
  const whole = isShared
    ? new Uint8Array(new SharedArrayBuffer(byteLength))
    : new Uint8Array(byteLength);
  whole.set(testBytes(key, layout.byteLength));
  return new ObjectWithTrailer(key, layout, [whole.subarray(0, 9_999), whole.subarray(9_999)]);
}

/** Room in shared memory. */
function sharedRoom(key: ObjectKey) {
  const { byteLength } = emptyObject(key, layout);
  return { key, byteLength, parts: [new Uint8Array(new SharedArrayBuffer(byteLength))] };
}

const options = { shards: 1, countsOnStart: false };

/** A store of which threads move all objects. */
async function openInThreads(path: string, threads: IoWorkers, files = new FaultyFiles()) {
  const store = await openFileStore(path, { ...options, threads, files: files.files });
  await waitUntil(() => threads.isReady);
  return store;
}

Deno.test("the thread of the engine makes no file call for an object", async () => {
  await using directory = await tempDirectory();
  const files = new FaultyFiles();
  await using store = await openInThreads(directory.path, new IoWorkers({ count: 2 }), files);
  const keys = testKeys(40);
  await store.store([openObject(testKey(99), true)], call);
  await files.settled();
  // Directories have been made; from now on, each call is one for an object.
  await waitUntil(async () => (await Array.fromAsync(Deno.readDir(directory.path))).length > 256);
  await files.settled();
  files.arm(() => undefined);
  const { stored } = await store.store(keys.map((key, i) => openObject(key, i % 2 === 0)), call);
  assertEquals(stored.popcount(), 40);
  for (const prefix of [true, false]) {
    const found = await store.lookupAndLock([...keys, testKey(77)], { ...call, prefix });
    assertEquals(found.popcount(), 40);
  }
  const faults: unknown[] = [];
  const proofs: unknown[] = [];
  const rooms = keys.map(sharedRoom);
  const onLoaded: LoadOptions["onLoaded"] = (index, fault, proof) => {
    const { key, parts } = rooms[index] ?? sharedRoom(testKey(0));
    proofs.push(proof);
    faults.push(fault, verifyObject(key, layout, parts, proof));
  };
  assertEquals((await store.load(rooms, { ...call, onLoaded })).popcount(), 40);
  assertEquals(new Set(faults), new Set([undefined, null]));
  assert(proofs.every((proof) => proof !== undefined));
  const ofObjects = files.calls.filter(({ path }) => /\.(?:data|tmp)$/.test(path));
  assertEquals(ofObjects, []);
  const [key = testKey(0)] = keys;
  const [whole = new Uint8Array(), tail = new Uint8Array()] = sealedObject(key, layout).parts;
  const written = await Deno.readFile(fileOf(directory.path, key));
  assertEquals(written, new Uint8Array([...whole, ...tail]), "as without threads");
});

Deno.test("a thread that damages nothing: a truncated or foreign file is no hit", async () => {
  await using directory = await tempDirectory();
  await using store = await openInThreads(directory.path, new IoWorkers({ count: 1 }));
  const keys = testKeys(3);
  await store.store(keys.map((key) => openObject(key, true)), call);
  const [first = testKey(0), second = testKey(0)] = keys;
  await Deno.truncate(fileOf(directory.path, first), 100);
  const damaged = await Deno.readFile(fileOf(directory.path, second));
  damaged[5] = (damaged[5] ?? 0) ^ 1;
  await Deno.writeFile(fileOf(directory.path, second), damaged);
  const told: unknown[] = [];
  const rooms = keys.map(sharedRoom);
  const onLoaded: LoadOptions["onLoaded"] = (index, fault, proof) => {
    const { key, parts } = rooms[index] ?? sharedRoom(testKey(0));
    told[index] = fault ?? verifyObject(key, layout, parts, proof);
  };
  assertEquals(String(await store.load(rooms, { ...call, onLoaded })), "011");
  assertEquals(told, ["layout", "payload-checksum", null]);
});

Deno.test("threads that are killed in the middle of batches leave nothing wrong", async () => {
  await using directory = await tempDirectory();
  const created: Worker[] = [];
  const program = new URL("../../../src/base/io/io_program.ts", import.meta.url);
  const startWorker = (data: object): Worker => {
    const worker = new Worker(program, { workerData: data });
    created.push(worker);
    return worker;
  };
  const threads = new IoWorkers({ count: 2, startWorker });
  const errors: string[] = [];
  await using store = await openFileStore(directory.path, {
    threads,
    shards: 1,
    onError: ({ message }) => void errors.push(message),
  });
  await waitUntil(() => threads.isReady);
  const keys = testKeys(120);
  let storedCount = 0;
  for (let round = 0; round < 4; round++) {
    const batch = keys.slice(30 * round, 30 * (round + 1));
    const storing = store.store(batch.map((key) => openObject(key, true)), call);
    await waitUntil(async () =>
      round % 2 === 1 || (await objectFilesIn(directory.path)).length > 0
    );
    await created.at(-1)?.terminate();
    storedCount += (await storing).stored.popcount();
    await waitUntil(() => threads.status.threads === 2);
  }
  assertGreater(storedCount, 0);
  // One that is written for so long that its thread dies in the middle.
  const large = new Uint8Array(new SharedArrayBuffer(2 ** 27));
  const key = testKey(200);
  const storing = store.store([{ key, parts: [large], byteLength: large.byteLength }], call);
  await waitUntil(async () => (await temporaryFilesIn(directory.path)).length > 0);
  await Promise.all(created.map((worker) => worker.terminate()));
  assertEquals(String((await storing).stored), "0");
  assert(errors.every((message) => message.includes("was terminated")), errors[0]);
  await waitUntil(async () => (await temporaryFilesIn(directory.path)).length === 0);
  const rooms = keys.map(sharedRoom);
  const loaded = await store.load(rooms, call);
  assertGreater(loaded.popcount() + 1, storedCount);
  for (const { key, parts } of loaded.gather(rooms)) {
    assertEquals(verifyObject(key, layout, parts), null);
  }
});

Deno.test("without permission for their program, no threads start, and the status says why", async () => {
  await using directory = await tempDirectory();
  const said = await runChild(new URL("./fs_threads_try.ts", import.meta.url), {
    permissions: [`--allow-read=${directory.path}`, `--allow-write=${directory.path}`],
    args: [directory.path],
  });
  const reason = "permission to read the program of worker threads is missing";
  assertEquals(said, ["1", "1", { phase: "unavailable", threads: 0, hanging: 0, reason }]);
});
