import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { Worker } from "node:worker_threads";
import { crc32 } from "../../../src/base/checksum.ts";
import { TaskStatus } from "../../../src/base/io/batch_state.ts";
import type { IoBatch, SharedBytes } from "../../../src/base/io/io_batch.ts";
import { IoWorkers } from "../../../src/base/io/io_workers.ts";
import { LoadProof } from "../../../src/base/io/load_proof.ts";
import { TRAILER_BYTES } from "../../../src/base/seal.ts";
import { runChild } from "../../support/child.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { waitUntil } from "../../support/wait_until.ts";

/** Shared bytes in two parts, which cross a boundary that no file system knows. */
function sharedParts(byteLength: number, seed = 1): SharedBytes[] {
  const bytes = new Uint8Array(new SharedArrayBuffer(byteLength));
  for (let i = 0; i < byteLength; i++) bytes[i] = i * seed + (i >> 8);
  return [bytes.subarray(0, 777), bytes.subarray(777)];
}

function shared(byteLength: number): SharedBytes {
  return new Uint8Array(new SharedArrayBuffer(byteLength));
}

/** Waits for threads to start, which keep no process alive. */
async function started(workers: IoWorkers): Promise<void> {
  const timer = setInterval(() => {}, 1_000);
  await workers.start();
  clearInterval(timer);
}

async function startWorkers(stack: AsyncDisposableStack, count: number): Promise<IoWorkers> {
  const workers = stack.adopt(new IoWorkers({ count }), (workers) => workers.close());
  await started(workers);
  assertEquals(workers.status, { phase: "ready", threads: count, hanging: 0 });
  return workers;
}

const buffered = { isDirect: false, readAheadBytes: 0 } as const;
const plain = { isDirect: false, mode: 0o600, durability: "none" } as const;
const reading = { trailingBytes: [0], allowShorter: false } as const;

Deno.test("threads store, find and load objects, and vouch for their checksums", async () => {
  await using directory = await tempDirectory();
  await using stack = new AsyncDisposableStack();
  const workers = await startWorkers(stack, 2);
  const paths = Array.from({ length: 20 }, (_, i) => join(directory.path, `o${i}`));
  const objects = paths.map((_, i) => sharedParts(5_000, i + 1));
  const tail = new Uint8Array(TRAILER_BYTES).fill(7);
  const payloadBytes = 5_000 - TRAILER_BYTES;
  const stored = await workers.run({
    kind: "store",
    ...plain,
    tasks: paths.map((path, i) => ({
      tmpPath: `${path}.tmp`,
      finalPath: path,
      parts: objects[i] ?? [],
      seal: { payloadBytes, tail },
    })),
  });
  assertEquals(paths.map((_, i) => stored.statusOf(i)), paths.map(() => TaskStatus.done));
  const missing = join(directory.path, "missing");
  const found = await workers.run({
    kind: "find",
    tasks: [...paths, missing].map((path, i) => ({ path, isStrict: i % 2 === 0 })),
  });
  assertEquals(found.statusOf(19), TaskStatus.done);
  assertInstanceOf(found.errorOf(20), Deno.errors.NotFound);
  await Deno.truncate(paths[3] as string, 4_999);
  const rooms = paths.map(() => [shared(1_000), shared(4_000)]);
  const tasks = paths.map((path, i) => ({
    ...reading,
    path,
    parts: rooms[i] ?? [],
    checksumBytes: payloadBytes,
  }));
  const loaded = await workers.run({ kind: "load", ...buffered, tasks });
  for (const [i, parts] of rooms.entries()) {
    if (i === 3) {
      assertEquals([loaded.statusOf(i), loaded.proofOf(i)], [TaskStatus.otherSize, undefined]);
      continue;
    }
    const bytes = new Uint8Array([...parts[0] ?? [], ...parts[1] ?? []]);
    assertEquals(bytes, new Uint8Array((objects[i] ?? []).flatMap((part) => [...part])));
    const checksum = crc32(bytes.subarray(0, payloadBytes));
    const view = new DataView(bytes.buffer, payloadBytes);
    assertEquals(view.getUint32(TRAILER_BYTES - 8, true), checksum);
    assertEquals(view.getUint32(TRAILER_BYTES - 4, true), crc32(bytes.subarray(payloadBytes, -4)));
    const proof = loaded.proofOf(i);
    assertEquals(LoadProof.use({ ...proof }, parts, payloadBytes), undefined, "forged");
    assertEquals(LoadProof.use(proof, parts, payloadBytes), checksum);
    assertEquals(LoadProof.use(proof, parts, payloadBytes), undefined, "used twice");
    assertEquals(LoadProof.use(loaded.proofOf(i), rooms[i ^ 1] ?? [], payloadBytes), undefined);
  }
});

Deno.test("threads copy bytes", async () => {
  await using stack = new AsyncDisposableStack();
  const workers = await startWorkers(stack, 2);
  const from = shared(3_000).map((_, i) => i % 251);
  const to = shared(3_000);
  const places = [[0, 1_000], [1_000, 1_001], [1_001, 3_000]] as const;
  const source = shared(3_000);
  source.set(from);
  await workers.run({
    kind: "copy",
    tasks: places.map(([start, end]) => ({
      from: source.subarray(start, end),
      to: to.subarray(start, end),
    })),
  });
  assertEquals([...to], [...from]);
});

/** Threads on a file system of which some paths do not answer until the gate opens. */
async function startHanging(stack: AsyncDisposableStack, count: number) {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const created: Worker[] = [];
  const program = new URL("../../support/hanging_io_program.ts", import.meta.url);
  const startWorker = (data: object): Worker => {
    const worker = new Worker(program, { workerData: { ...data, gate } });
    created.push(worker);
    return worker;
  };
  let now = 0;
  const clock = {
    now: () => now,
    schedule(callback: () => void) {
      const timer = setTimeout(callback);
      return () => clearTimeout(timer);
    },
  };
  const workers = new IoWorkers({ count, startWorker, clock });
  const open = (): void => {
    Atomics.store(gate, 0, 1);
    Atomics.notify(gate, 0);
  };
  stack.defer(async () => {
    open();
    await workers.close();
  });
  await started(workers);
  return { workers, open, created, later: () => void (now += 1_000) };
}

const lookups = (...paths: readonly string[]): IoBatch => ({
  kind: "find",
  tasks: paths.map((path) => ({ path, isStrict: true })),
});

Deno.test("a thread that does not return is replaced, up to a bound, and comes back", async () => {
  await using stack = new AsyncDisposableStack();
  const { workers, open, later } = await startHanging(stack, 1);
  const here = lookups(".");
  let settled = 0;
  for (let hanging = 1; hanging <= 2; hanging++) {
    const caller = new AbortController();
    workers.run(lookups("hang", "."), caller).then(() => settled++);
    await waitUntil(() => workers.status.threads === 1);
    // The thread has taken the first task before the caller gives up.
    await new Promise((resolve) => setTimeout(resolve, 20));
    caller.abort();
    later();
    if (hanging === 1) {
      const found = await workers.run(here);
      assertEquals(found.statusOf(0), TaskStatus.absent, "a directory is no file");
      assertEquals(workers.status, { phase: "ready", threads: 1, hanging: 1 });
    }
  }
  await assertRejects(() => workers.run(here), Error, "All 2 worker threads wait");
  assertEquals(settled, 0, "buffers of a call that may go on");
  open();
  await waitUntil(() => settled === 2);
  await waitUntil(() => workers.status.threads === 1 && workers.status.hanging === 0);
  assertEquals((await workers.run(here)).statusOf(0), TaskStatus.absent);
});

Deno.test("a thread that is terminated fails what it was at work on, and is replaced", async () => {
  await using stack = new AsyncDisposableStack();
  const { workers, created } = await startHanging(stack, 2);
  const batch = workers.run(lookups("hang", ...Array<string>(50).fill(".")));
  await waitUntil(() => workers.status.threads === 2);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const [first, second] = created;
  // A thread in a call that does not return ends with it; the other one has done the rest.
  await first?.terminate();
  await second?.terminate();
  const results = await batch;
  assertEquals(results.statusOf(0), TaskStatus.failed);
  assertEquals(results.errorOf(0)?.message, "A worker thread has ended: it was terminated");
  assertEquals(results.statusOf(50), TaskStatus.absent);
  await waitUntil(() => workers.status.threads === 2);
  assertEquals((await workers.run(lookups("."))).statusOf(0), TaskStatus.absent);
});

Deno.test("closing ends batches whose buffers no thread fills", async () => {
  await using stack = new AsyncDisposableStack();
  const { workers } = await startHanging(stack, 1);
  const batch = workers.run(lookups("hang", "."));
  await workers.close();
  const results = await batch;
  assertEquals(results.statusOf(1), TaskStatus.skipped);
  assertEquals(workers.status.phase, "closed");
  await assertRejects(() => workers.run(lookups(".")), Error, "closed");
});

Deno.test("without permission to read the program there are no threads", async () => {
  const program = new URL("../../support/io_workers_status.ts", import.meta.url);
  const status = await runChild(program, { permissions: ["--allow-read=/nowhere"] });
  assertEquals(status, {
    phase: "unavailable",
    threads: 0,
    hanging: 0,
    reason: "permission to read the program of worker threads is missing",
  });
});

Deno.test("idle threads keep no process alive", async () => {
  const program = new URL("../../support/io_workers_status.ts", import.meta.url);
  const shell = ["timeout", "-s", "KILL", "20"] as const;
  const status = await runChild(program, { shell });
  assert(typeof status === "object" && status !== null && "phase" in status);
  assertEquals(status.phase, "ready");
});
