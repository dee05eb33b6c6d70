import { assert, assertEquals } from "@std/assert";
import { Worker } from "node:worker_threads";
import { concatParts } from "../../../src/base/byte_parts.ts";
import type { IoBatch } from "../../../src/base/io/io_batch.ts";
import { IoWorkers } from "../../../src/base/io/io_workers.ts";
import { HostDevice, setCopyThreads } from "../../../src/memory/host_device.ts";
import type { MemoryRange } from "../../../src/memory/memory_device.ts";
import { STAGING_BLOCK_BYTES, StagingPool } from "../../../src/memory/staging_pool.ts";
import { sharedBytes } from "../../../src/memory/thread_copies.ts";
import { warmBlocks } from "../../../src/memory/warm_blocks.ts";
import { assertSameBytes } from "../../support/bytes.ts";

const MIB = 2 ** 20;
/** Sizes of objects: small, ordinary, and larger than a staging block. */
const SIZES = [4, 256 * 1024, STAGING_BLOCK_BYTES + 256];

/** Threads that note the copies they are given. */
class NotingWorkers extends IoWorkers {
  readonly copies: number[] = [];

  override run(...args: Parameters<IoWorkers["run"]>): ReturnType<IoWorkers["run"]> {
    const [{ kind, tasks }] = args;
    if (kind === "copy") this.copies.push(tasks.length);
    return super.run(...args);
  }
}

async function startWorkers(stack: AsyncDisposableStack): Promise<NotingWorkers> {
  const workers = stack.adopt(new NotingWorkers({ count: 2 }), (workers) => workers.close());
  const timer = setInterval(() => {}, 1_000);
  await workers.start();
  clearInterval(timer);
  return workers;
}

/** Ranges of one slab, of `SIZES`. */
function rangesOf(device: HostDevice): MemoryRange[] {
  const { buffer } = device.createSlab(2 * SIZES.reduce((sum, size) => sum + size));
  let byteOffset = 0;
  return SIZES.map((byteLength) => {
    const range = { buffer, byteOffset, byteLength };
    byteOffset += byteLength;
    return range;
  });
}

/** Bytes of an object. */
function bytesOf(index: number, byteLength: number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  for (let i = 0; i < byteLength; i++) bytes[i] = index + i * 7 + (i >> 8);
  return bytes;
}

/** The same in two parts that threads share. */
function partsOf(index: number, byteLength: number): Uint8Array[] {
  const bytes = sharedBytes(byteLength);
  bytes.set(bytesOf(index, byteLength));
  const half = 4 * Math.floor(byteLength / 8);
  return half === 0 ? [bytes] : [bytes.subarray(0, half), bytes.subarray(half)];
}

async function assertObjects(device: HostDevice, ranges: readonly MemoryRange[]): Promise<void> {
  using read = await device.readBack(ranges.map((range) => ({ range, tailBytes: 64 })));
  for (const [i, parts] of read.objects.entries()) {
    const { byteLength = 0 } = ranges[i] ?? {};
    const bytes = concatParts(parts);
    assertEquals(bytes.byteLength, byteLength + 64);
    assertSameBytes(bytes.subarray(0, byteLength), bytesOf(i, byteLength), `object ${i}`);
  }
}

Deno.test("threads upload and read back what is large", async () => {
  await using stack = new AsyncDisposableStack();
  const workers = await startWorkers(stack);
  using device = new HostDevice();
  setCopyThreads(device, workers);
  const ranges = rangesOf(device);
  await device.uploadAll(ranges.map((range, i) => ({ range, parts: partsOf(i, SIZES[i] ?? 0) })));
  assertEquals(workers.copies, [5]);
  await assertObjects(device, ranges);
  assertEquals(workers.copies.length, 2);

  const [small] = ranges;
  assert(small !== undefined);
  assertEquals(device.uploadAll([{ range: small, parts: partsOf(5, 4) }]), undefined);
  setCopyThreads(device, undefined);
  const uploads = ranges.map((range, i) => ({ range, parts: partsOf(i, SIZES[i] ?? 0) }));
  assertEquals(device.uploadAll(uploads), undefined, "without threads it is done at once");
  await assertObjects(device, ranges);
  assertEquals(workers.copies.length, 2);
});

Deno.test("memory that threads cannot access is copied at once", async () => {
  await using stack = new AsyncDisposableStack();
  const workers = await startWorkers(stack);
  using device = new HostDevice();
  setCopyThreads(device, workers);
  const ranges = rangesOf(device);
  const uploads = ranges.map((range, i) => ({ range, parts: [bytesOf(i, SIZES[i] ?? 0)] }));
  assertEquals(device.uploadAll(uploads), undefined);
  await assertObjects(device, ranges);
});

Deno.test("what no thread begins in time, or ever, is copied all the same", async () => {
  await using stack = new AsyncDisposableStack();
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const program = new URL("../../support/hanging_io_program.ts", import.meta.url);
  const workers = new IoWorkers({
    count: 1,
    startWorker: (data) => new Worker(program, { workerData: { ...data, gate } }),
  });
  const open = (): void => {
    Atomics.store(gate, 0, 1);
    Atomics.notify(gate, 0);
  };
  stack.defer(async () => {
    open();
    await workers.close();
  });
  const timer = setInterval(() => {}, 1_000);
  await workers.start();
  clearInterval(timer);
  const hanging: IoBatch = { kind: "find", tasks: [{ path: "hang", isStrict: true }] };
  const found = workers.run(hanging);
  using device = new HostDevice();
  setCopyThreads(device, workers);
  const ranges = rangesOf(device);
  await device.uploadAll(ranges.map((range, i) => ({ range, parts: partsOf(i, SIZES[i] ?? 0) })));
  await assertObjects(device, ranges);
  open();
  await found;

  await workers.close();
  await device.uploadAll(ranges.map((range, i) => ({ range, parts: partsOf(i, SIZES[i] ?? 0) })));
  await assertObjects(device, ranges);
});

Deno.test("buffers of read-backs are used again, unless they are abandoned", async () => {
  using device = new HostDevice();
  const { buffer } = device.createSlab(MIB);
  const request = { range: { buffer, byteOffset: 0, byteLength: MIB }, tailBytes: 64 };
  const memoryOf = async (end: "dispose" | "abandon"): Promise<ArrayBufferLike | undefined> => {
    const read = await device.readBack([request]);
    if (end === "abandon") read.abandon();
    const [[part] = []] = read.objects;
    read[Symbol.dispose]();
    return part?.buffer;
  };
  const first = await memoryOf("dispose");
  assert(first === await memoryOf("abandon"));
  assert(first !== await memoryOf("dispose"));
});

Deno.test("threads use memory for the first time before it is needed, within a bound", async () => {
  await using stack = new AsyncDisposableStack();
  const workers = await startWorkers(stack);
  let created = 0;
  const poolOf = (blocks: number): StagingPool<Uint8Array> =>
    new StagingPool({
      blockBytes: MIB,
      capacityBytes: blocks * MIB,
      create: () => {
        created++;
        return sharedBytes(MIB);
      },
      destroy: () => {},
    });
  const pool = poolOf(8);
  await warmBlocks(pool, 3.5 * MIB, workers);
  assertEquals([pool.totalBytes, pool.lentBytes, workers.copies], [3 * MIB, 0, [2, 2, 2]]);
  const blocks = await pool.acquire(4);
  assertEquals(created, 1, "the others are there");
  pool.release(blocks);
  const small = poolOf(2);
  await warmBlocks(small, 8 * MIB, workers);
  assertEquals(small.totalBytes, 2 * MIB);
  pool[Symbol.dispose]();
  await warmBlocks(pool, 8 * MIB, workers);
  assertEquals(pool.totalBytes, 0);
  await workers.close();
  const late = poolOf(2);
  await warmBlocks(late, 8 * MIB, workers);
  assertEquals(late.totalBytes, 0);
});
