/**
 * The prefix cache for inference engines: maps prompts to KV in device memory.
 *
 * @example Restore the KV of a prefix instead of computing it again
 * ```ts
 * import { TieredCache } from "@kvtier/kvtier";
 * import { kvLayout, PrefixCache } from "@kvtier/kvtier/engine";
 * import { HostDevice } from "@kvtier/kvtier";
 * import { assertEquals } from "@std/assert";
 *
 * await using cache = await TieredCache.open({ device: new HostDevice() });
 * const layout = kvLayout({ layers: 1, kvHeads: 1, headDim: 4, dtype: "f32", chunkTokens: 2 });
 * const prefixes = new PrefixCache(cache, { model: { name: "tiny" }, layout });
 *
 * const prompt = [1, 2, 3, 4];
 * const computed = [{ key: new Uint8Array(64).fill(1), value: new Uint8Array(64).fill(2) }];
 * prefixes.put(prompt, computed, { computedTokens: 4 });
 *
 * using hit = await prefixes.match([...prompt, 5]);
 * assertEquals(hit.tokens, 4);
 * const restored = [{ key: new Uint8Array(80), value: new Uint8Array(80) }];
 * hit.scatterTo(restored);
 * assertEquals(restored[0]?.key.subarray(0, 64), computed[0]?.key);
 * ```
 *
 * @module
 */
export {
  chunkHashes,
  type ChunkHashOptions,
  type PositionedKey,
  type PrefixIdentity,
  rootHash,
  type TokenIds,
} from "../keys/chunk_hash.ts";
export {
  DEFAULT_CHUNK_TOKENS,
  type KvDtype,
  type KvLayout,
  kvLayout,
  type KvOrder,
  type KvShape,
  type ObjectLayout,
} from "../keys/kv_layout.ts";
export { type KvRankFields, packKvRank, unpackKvRank } from "../keys/object_key.ts";
export type { StagedObject, WriteReservation } from "../l1/l1_cache.ts";
export type {
  CopyOperation,
  DeviceAnswer,
  DeviceBuffer,
  MemoryRange,
  ReadBack,
  ReadBackRequest,
  Slab,
  Upload,
} from "../memory/memory_device.ts";
export type { KeyGroup } from "../prefetch/key_group.ts";
export type { LoadDecision, LoadDecisionReason } from "../prefetch/load_decision.ts";
export type { MissReason } from "../prefetch/miss_reason.ts";
export type { KvBlocks, KvLayer, KvTensors, SequenceKv } from "./kv_binding.ts";
export type { GroupedKv, KvGroup } from "./kv_groups.ts";
export type { PrefillReport } from "./prefill_rate.ts";
export { PrefixCache, type PutResult } from "./prefix_cache.ts";
export { PrefixHit } from "./prefix_hit.ts";
export type {
  MatchOptions,
  PrefixCacheOptions,
  PromptOptions,
  PutOptions,
} from "./prefix_options.ts";
export type { AdapterTokens, PrefixMiss, PrefixReport } from "./prefix_report.ts";
export type { PromptDifference } from "./recent_prompts.ts";
