/**
 * A tiered KV cache for LLM inference on WebGPU. It keeps the attention keys and values of prompt
 * prefixes in GPU buffers (L1), stores them in storage adapters (L2), and loads them after a restart
 * or in another process, so that they are not computed again.
 *
 * @example Open a cache in GPU memory, backed by a directory
 * ```ts
 * import { TieredCache } from "@kvtier/kvtier";
 * import { assertEquals } from "@std/assert";
 *
 * const base_path = await Deno.makeTempDir();
 * {
 *   await using cache = await TieredCache.open({
 *     l1: { capacityBytes: 512 * 2 ** 20 },
 *     l2: [{ type: "fs", base_path }],
 *   });
 *   assertEquals(cache.reportStatus().problems, []);
 * }
 * await Deno.remove(base_path, { recursive: true });
 * ```
 *
 * @module
 */
export type {
  ConnectorConfig,
  DramConfig,
  FaultInjectConfig,
  FilePoolConfig,
  FsConfig,
  MockConfig,
  PluginConfig,
  RespConfig,
  S3Config,
} from "./adapters/mod.ts";
export type {
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  AdapterCapabilities,
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  L2Adapter,
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  L2AdapterModule,
} from "./src/adapter/contract.ts";
export { AdapterError } from "./src/adapter/errors.ts";
export type {
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  TrailerFault,
} from "./src/adapter/object_trailer.ts";
export { type Clock, type ScheduleOptions, systemClock } from "./src/base/clock.ts";
export { ConfigError } from "./src/base/config_error.ts";
export { type RandomSource, systemRandom } from "./src/base/random.ts";
export { CacheHit, type WarmResult } from "./src/cache_hit.ts";
export {
  type L1Options,
  type MetricsSettings,
  type PrefetchSettings,
  type StoreSettings,
  type TieredCacheOptions,
} from "./src/cache_options.ts";
export type { CloseOptions, FlushOptions } from "./src/call_options.ts";
export type { AdapterEvictionStatus } from "./src/eviction/adapter_evictor.ts";
export type { EvictionStatus } from "./src/eviction/eviction_controller.ts";
export { type Quota, QuotaRegistry } from "./src/eviction/quota_registry.ts";
export type {
  AdapterInfo,
  RemoveAdapterOptions,
  RemoveAdapterReport,
} from "./src/hotplug/adapter_manager.ts";
export {
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  Bitmap,
} from "./src/keys/bitmap.ts";
export {
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  decodeFileName,
  /** @deprecated Import it from `@kvtier/kvtier/adapter`. */
  encodeFileName,
} from "./src/keys/key_codec.ts";
export type {
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  ObjectLayout,
} from "./src/keys/kv_layout.ts";
export {
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type KvRankFields,
  ObjectKey,
  type ObjectKeyFields,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  packKvRank,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  unpackKvRank,
} from "./src/keys/object_key.ts";
export type {
  L1Status,
  L1StatusReport,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  StagedObject,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  WriteReservation,
  WrittenObject,
} from "./src/l1/l1_cache.ts";
export type { L2Config } from "./src/l2/adapter_config.ts";
export type {
  AdapterState,
  AdapterStatus,
  AdapterTimeouts,
  CircuitName,
  CircuitStatus,
} from "./src/l2/adapter_status.ts";
export type { BreakerOptions, CircuitState } from "./src/l2/circuit_breaker.ts";
export type {
  ForgetReport,
  ForgetSelector,
  LifecycleStatus,
} from "./src/lifecycle/key_lifecycle.ts";
export { HostDevice } from "./src/memory/host_device.ts";
export {
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type CopyOperation,
  type CopyPath,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type DeviceAnswer,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type DeviceBuffer,
  type DeviceLoss,
  DeviceLostError,
  type MeasuredCopyPath,
  type MemoryDevice,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type MemoryRange,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type ReadBack,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type ReadBackRequest,
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  type Slab,
} from "./src/memory/memory_device.ts";
export type { SlabAllocatorStats } from "./src/memory/slab_allocator.ts";
export { WebGpuDevice, type WebGpuDeviceOptions } from "./src/memory/webgpu_device.ts";
export type { EvictionPolicyName } from "./src/policies/eviction_order.ts";
export { type EvictionPolicy, LruPolicy } from "./src/policies/eviction_policy.ts";
export type {
  /** @deprecated Import it from `@kvtier/kvtier/engine`. */
  KeyGroup,
  KeyRow,
} from "./src/prefetch/key_group.ts";
export type {
  LoadDecision,
  LoadDecisionCounts,
  LoadDecisionReason,
} from "./src/prefetch/load_decision.ts";
export type { AdapterShare, MatchReport } from "./src/prefetch/match_report.ts";
export type { MissReason } from "./src/prefetch/miss_reason.ts";
export type { PrefetchOptions, PrefetchStatus } from "./src/prefetch/prefetch_controller.ts";
export type { PrefetchPolicy } from "./src/prefetch/prefetch_policy.ts";
export type { Miss } from "./src/prefetch/prefetch_request.ts";
export type { FlushReport, UnwrittenObjects, UnwrittenReason } from "./src/store/flush_report.ts";
export type { SkipReason } from "./src/store/skipped_writes.ts";
export type { AdmissionRefusal } from "./src/store/store_admission.ts";
export type { StorePolicy, StoreTarget } from "./src/store/store_policy.ts";
export type { StoreStatus, WhenFull } from "./src/store/store_types.ts";
export type { CacheStatus, UsageShare, UsageStatus } from "./src/telemetry/cache_status.ts";
export {
  type AdapterReference,
  type CacheEvent,
  type CacheEventListener,
  type CacheEventMap,
  CacheEvents,
  type CacheEventType,
} from "./src/telemetry/events.ts";
export { TieredCache } from "./src/tiered_cache.ts";
