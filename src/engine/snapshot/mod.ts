/**
 * Caches the states of engines that export them as opaque bytes, keyed by the tokens they cover.
 *
 * @example Save a state and find it for a longer prompt
 * ```ts
 * import { HostDevice, TieredCache } from "@kvtier/kvtier";
 * import { SnapshotCache } from "@kvtier/kvtier/snapshot";
 * import { assertEquals } from "@std/assert";
 *
 * await using cache = await TieredCache.open({ device: new HostDevice() });
 * const snapshots = new SnapshotCache(cache, {
 *   model: "smollm2",
 *   fingerprint: "sha256 of the model file; llama.cpp b7000",
 * });
 * await snapshots.put([1, 2, 3], new Uint8Array([7, 8, 9]));
 *
 * const found = await snapshots.match([1, 2, 3, 4, 5]);
 * assertEquals(found, { tokens: 3, bytes: new Uint8Array([7, 8, 9]) });
 * ```
 *
 * @module
 */
export {
  fileFingerprint,
  type Snapshot,
  SnapshotCache,
  type SnapshotCacheOptions,
  type SnapshotMatchOptions,
  type SnapshotOptions,
} from "./snapshot_cache.ts";
