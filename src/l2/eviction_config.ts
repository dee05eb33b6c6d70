import { GIB, MAX_GIB } from "../base/units.ts";
import { parseAdapterConfig } from "../adapter/config.ts";
import { ConfigError } from "../base/config_error.ts";
import type { EvictionPolicyName } from "../policies/eviction_order.ts";
import { evictionField, policyOf, watermarksOf } from "../adapter/eviction_field.ts";

/** Limits that the cache enforces on an adapter that does not evict by itself. */
export interface AdapterEviction {
  /** Maximum bytes of objects; if left out, only quotas limit the adapter. */
  readonly capacityBytes?: number;
  /** Order in which objects are evicted. @default {"LRU"} */
  readonly policy?: EvictionPolicyName;
  /** Share of the capacity above which eviction starts. @default {0.8} */
  readonly highWatermark?: number;
  /** Share of the capacity at which eviction stops. @default {0.6} */
  readonly lowWatermark?: number;
}

const config = {
  eviction: {
    ...evictionField,
    fields: {
      ...evictionField.fields,
      max_capacity_gb: {
        type: "number",
        exclusiveMinimum: 0,
        maximum: MAX_GIB,
        help: "Maximum GiB of objects.",
      },
    },
  },
} as const;

/**
 * Parses the `eviction` block of an adapter that does not evict by itself: `max_capacity_gb` in
 * GiB, and the keys of {@linkcode evictionField}.
 *
 * @throws {ConfigError} If a key is unknown, the capacity is missing or a value is not valid.
 */
export function parseEviction(type: string, block: unknown): AdapterEviction {
  const summary = "Limits that the cache enforces on an adapter that does not evict by itself.";
  const { eviction } = parseAdapterConfig({ type, summary, config }, { eviction: block });
  const watermarks = watermarksOf(eviction);
  const policy = policyOf(eviction);
  if (watermarks === undefined || policy === undefined) return {};
  const capacity = eviction?.max_capacity_gb;
  if (capacity === undefined) {
    const key = "eviction.max_capacity_gb";
    const expected = "a number above 0, so that the cache knows when to evict";
    throw new ConfigError({ subject: `${type} adapter`, key, expected, received: capacity });
  }
  const { high: highWatermark, low: lowWatermark } = watermarks;
  return { capacityBytes: Math.floor(capacity * GIB), highWatermark, lowWatermark, policy };
}
