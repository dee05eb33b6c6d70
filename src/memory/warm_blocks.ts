import type { IoWorkers } from "../base/io/io_workers.ts";
import { alignedBytes } from "./aligned_bytes.ts";
import type { StagingPool } from "./staging_pool.ts";
import { isShared } from "./thread_copies.ts";

/**
 * Adds blocks to a pool whose memory worker threads have used once: the first use of memory costs
 * more than reading a file into it. Ends early if the threads or the pool are closed; never rejects.
 *
 * @param bytes Maximum size of the blocks together.
 */
export async function warmBlocks(
  pool: StagingPool<Uint8Array>,
  bytes: number,
  threads: IoWorkers,
): Promise<void> {
  const { blockBytes } = pool;
  for (let left = bytes; left >= blockBytes && threads.isReady; left -= blockBytes) {
    const block = alignedBytes(blockBytes);
    const half = blockBytes / 2;
    const [front, back] = [block.subarray(0, half), block.subarray(half)];
    if (!isShared(front) || !isShared(back)) return;
    // Zeros replace zeros.
    const tasks = [{ from: front, to: back }, { from: back, to: front }];
    if (!await threads.run({ kind: "copy", tasks }).then(() => true, () => false)) return;
    if (!pool.add(block)) return;
  }
}
