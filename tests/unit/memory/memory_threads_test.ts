import { assert, assertEquals } from "@std/assert";
import { alignedBytes } from "../../../src/memory/aligned_bytes.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { MemoryThreads } from "../../../src/memory/memory_threads.ts";
import { STAGING_BLOCK_BYTES, StagingPool } from "../../../src/memory/staging_pool.ts";
import { sharedBytes } from "../../../src/memory/thread_copies.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { waitUntil } from "../../support/wait_until.ts";

const MIB = 2 ** 20;

Deno.test("the thread for memory starts late, warms blocks, copies, and ends", async () => {
  const clock = new ManualClock();
  const scratch = new StagingPool<Uint8Array>({
    blockBytes: STAGING_BLOCK_BYTES,
    capacityBytes: 128 * MIB,
    create: () => alignedBytes(STAGING_BLOCK_BYTES),
    destroy: () => {},
  });
  const [first, second] = [new HostDevice(), new HostDevice()];
  const isCopiedByThread = async (device: HostDevice): Promise<boolean> => {
    const { buffer, byteLength } = device.createSlab(2 * MIB);
    const range = { buffer, byteOffset: 0, byteLength };
    const copied = device.uploadAll([{ range, parts: [sharedBytes(2 * MIB)] }]);
    await copied;
    return copied !== undefined;
  };
  const threads = new MemoryThreads(first, scratch, clock);
  threads.start();
  threads.start();
  assertEquals(clock.pendingTimers, 1);
  await clock.advance(100);
  await waitUntil(() => scratch.totalBytes + STAGING_BLOCK_BYTES > 32 * MIB);
  assertEquals([await isCopiedByThread(first), await isCopiedByThread(second)], [true, false]);
  threads.attach(second);
  assert(await isCopiedByThread(second));
  await threads[Symbol.asyncDispose]();
  assertEquals(await isCopiedByThread(second), false);
  assert(scratch.totalBytes <= 32 * MIB);
});
