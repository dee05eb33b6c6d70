import type { Trace } from "./trace_file.ts";

/**
 * Blocks of served prefixes if the future were known (Belady): after each request the blocks whose
 * next request is nearest stay, and what does not fit is not stored at all. Chunks of a prefix are
 * requested no later than what follows them, so that these blocks are prefixes, and no policy can
 * hit more.
 */
export function beladyHits(trace: Trace, capacity: number): number {
  const { requests, uniqueBlocks } = trace;
  const next = nextRequests(trace);
  /** Request that needs each resident block next; absent blocks have -1. */
  const neededAt = new Float64Array(uniqueBlocks).fill(-1);
  /** Resident blocks by the request that needs them next. */
  const byRequest: number[][] = Array.from(requests, () => []);
  let size = 0;
  let farthest = 0;
  let hits = 0;
  let index = 0;
  for (const [request, { blocks }] of requests.entries()) {
    let isFront = true;
    for (const block of blocks) {
      isFront &&= neededAt[block] === request;
      if (isFront) hits++;
      if (neededAt[block] !== -1) size--;
      const later = next[index++] as number;
      neededAt[block] = later;
      if (later < 0) continue;
      (byRequest[later] as number[]).push(block);
      farthest = Math.max(farthest, later);
      size++;
    }
    byRequest[request] = [];
    while (size > capacity) {
      // The tail of a chain comes last.
      const block = byRequest[farthest]?.pop();
      if (block === undefined) farthest--;
      else if (neededAt[block] === farthest) {
        neededAt[block] = -1;
        size--;
      }
    }
  }
  return hits;
}

/** For each block of each request, in order, the next request with it; -1 if there is none. */
function nextRequests({ requests, uniqueBlocks, blockCount }: Trace): Int32Array {
  const next = new Int32Array(blockCount);
  const seen = new Int32Array(uniqueBlocks).fill(-1);
  let index = blockCount;
  for (let request = requests.length - 1; request >= 0; request--) {
    const { blocks } = requests[request] as Trace["requests"][number];
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks[i] as number;
      next[--index] = seen[block] as number;
      seen[block] = request;
    }
  }
  return next;
}
