import { wait } from "../base/clock.ts";
import { sha256 } from "../base/digest.ts";
import { ObjectKey } from "../keys/object_key.ts";
import { HostDevice } from "../memory/host_device.ts";
import { TieredCache } from "../tiered_cache.ts";
import type { TraceRequest } from "../trace/trace_file.ts";
import type { CliHost } from "./host.ts";
import { Latencies } from "./latencies.ts";

/** Tokens of a block. */
const BLOCK_TOKENS = 512;

/** How to replay a trace. */
export interface ReplayOptions {
  readonly cache: Parameters<typeof TieredCache.open>[0];
  /** Bytes of a block. */
  readonly blockBytes: number;
  /** Tokens that an engine computes per second. */
  readonly tokensPerSecond: number;
  /** Whether matches load only what is estimated to be faster to load than to compute. */
  readonly isGated: boolean;
  /** Whether requests arrive at the times of the trace. */
  readonly isTimed: boolean;
  /** Called after each request. */
  readonly onRequest: (requests: number, blocks: number, bytes: number) => void;
}

/** What a replay measured, in blocks and bytes. */
export interface ReplayResult {
  readonly requests: number;
  readonly blocks: number;
  /** Blocks of served prefixes, by tier: `L1`, the types of the adapters, `others`. */
  readonly hits: Readonly<Record<string, number>>;
  /** Objects and bytes that adapters stored. */
  readonly writtenObjects: number;
  readonly writtenBytes: number;
  /** Bytes that adapters loaded. */
  readonly loadedBytes: number;
  /** Objects that adapters stored for each different block that was hit; `null` without hits. */
  readonly writesPerHitBlock: number | null;
  /** Time to the first token in milliseconds: the measured match, and computing the rest. */
  readonly firstTokenMs: { readonly mean: number; readonly p50: number; readonly p95: number };
  /** The same if everything is computed. */
  readonly computedMs: { readonly mean: number; readonly p50: number; readonly p95: number };
  /** Objects that the cache could not take, or did not store. */
  readonly skippedBlocks: number;
}

/**
 * Drives a cache with the requests of a trace, one after the other: each is a match, and a put of
 * the blocks that were not served. What it stored is removed in the end.
 */
export async function replay(
  requests: AsyncIterable<TraceRequest>,
  { cache: options, blockBytes, tokensPerSecond, isGated, isTimed, onRequest }: ReplayOptions,
  { clock, signal }: CliHost,
): Promise<ReplayResult> {
  // A name of its own keeps the objects apart from those of other runs.
  const model = `replay-${crypto.randomUUID()}`;
  const layout = {
    byteLength: blockBytes,
    fingerprint: sha256(new TextEncoder().encode(model)).slice(0, 8),
  };
  const blockMs = 1000 * BLOCK_TOKENS / tokensPerSecond;
  const [firstToken, computed] = [new Latencies(), new Latencies()];
  const hits: Record<string, number> = { L1: 0 };
  const hitBlocks = new Set<number>();
  let [count, blockCount, skippedBlocks] = [0, 0, 0];
  await using cache = await TieredCache.open({ ...options, device: new HostDevice() });
  try {
    const start = clock.now();
    for await (const { blocks, inputTokens, timestamp } of requests) {
      signal.throwIfAborted();
      const early = start + timestamp - clock.now();
      if (isTimed && early > 0) await wait(clock, early, signal);
      const keys = blocks.map((block) => keyOf(model, block));
      const began = performance.now();
      const computeMs = (chunk: number): number => (blocks.length - chunk) * blockMs;
      using hit = await cache.match(keys, layout, { signal, ...isGated ? { computeMs } : {} });
      const matchMs = performance.now() - began;
      const left = Math.max(0, inputTokens - hit.length * BLOCK_TOKENS);
      firstToken.add(matchMs + 1000 * left / tokensPerSecond);
      computed.add(1000 * inputTokens / tokensPerSecond);
      addTo(hits, "L1", hit.report.l1Objects);
      for (const { type, objects } of hit.report.adapters) addTo(hits, type, objects);
      addTo(hits, "others", hit.report.otherObjects);
      for (const block of blocks.slice(0, hit.length)) hitBlocks.add(block);
      skippedBlocks += putRest(cache, keys, hit.length, layout);
      await cache.storeReady();
      count++;
      blockCount += blocks.length;
      onRequest(count, blockCount, blockCount * blockBytes);
    }
    await cache.flush();
    const { adapters } = cache.reportStatus();
    const sum = (of: (each: typeof adapters[number]) => number): number =>
      adapters.reduce((total, each) => total + of(each), 0);
    const writtenObjects = sum(({ storedObjects }) => storedObjects);
    return {
      requests: count,
      blocks: blockCount,
      hits,
      writtenObjects,
      writtenBytes: sum(({ storedBytes }) => storedBytes),
      loadedBytes: sum(({ loadedBytes }) => loadedBytes),
      writesPerHitBlock: hitBlocks.size === 0 ? null : writtenObjects / hitBlocks.size,
      firstTokenMs: firstToken.summary(),
      computedMs: computed.summary(),
      skippedBlocks,
    };
  } finally {
    await cache.forget({ model });
  }
}

/** Puts the blocks behind a served prefix; returns how many L1 had no room for. */
function putRest(
  cache: TieredCache,
  keys: readonly ObjectKey[],
  served: number,
  layout: { readonly byteLength: number; readonly fingerprint: Uint8Array },
): number {
  let skipped = 0;
  const staged = [];
  for (const key of keys.slice(served)) {
    const [reservation] = cache.reserveWrite([key], layout);
    if (reservation?.status === "success") {
      const bytes = new Uint8Array(layout.byteLength).fill(key.chunkHash[0] ?? 0);
      cache.device.upload(reservation.staged.range, [bytes]);
      staged.push(reservation.staged);
    } else if (reservation?.status !== "already-present") {
      skipped = keys.length - keys.indexOf(key);
      break;
    }
  }
  cache.finishWrite(staged);
  cache.touch(keys, { isUse: false });
  return skipped;
}

function keyOf(model: string, block: number): ObjectKey {
  return new ObjectKey({ model, chunkHash: sha256(new TextEncoder().encode(`block ${block}`)) });
}

function addTo(counts: Record<string, number>, name: string, count: number): void {
  if (count > 0) counts[name] = (counts[name] ?? 0) + count;
}
