import { GIB } from "../base/units.ts";
import type { CapacityBounds } from "./capacity.ts";
import type { EvictionPolicyName } from "../policies/eviction_order.ts";
import type { ConfigValues, NumberField, StringField } from "./config.ts";

/** Policies of LMCache that are not supported, and what to use instead. */
const unsupportedPolicies: Readonly<Record<string, string>> = {
  IsolatedLRU: "LRU or noop: the quotas of the cache limit the bytes of each salt",
};

/**
 * The configuration key `eviction` of an adapter with a capacity, with LMCache's names and
 * defaults.
 */
export const evictionField = {
  type: "object",
  help: "How to evict.",
  fields: {
    eviction_policy: {
      type: "string",
      oneOf: ["LRU", "LFU_AGED", "S3_FIFO", "ARC", "noop", "IsolatedLRU"],
      default: "LRU",
      check: (policy: string) => unsupportedPolicies[policy],
      help: "LRU evicts the least recently used objects first, LFU_AGED those used least often, " +
        "unless others have not been used for long; S3_FIFO and ARC keep objects used once apart. " +
        "noop evicts nothing. LMCache's IsolatedLRU is not supported.",
    },
    trigger_watermark: {
      type: "number",
      exclusiveMinimum: 0,
      maximum: 1,
      default: 0.8,
      help: "Share of the capacity above which objects are evicted. To evict nothing, use " +
        "eviction_policy noop rather than a value above 1.",
    },
    eviction_ratio: {
      type: "number",
      exclusiveMinimum: 0,
      maximum: 1,
      default: 0.2,
      help: "Share of the capacity that an eviction removes.",
    },
  },
} as const satisfies {
  type: "object";
  help: string;
  fields: Record<string, StringField | NumberField>;
};

/**
 * The shares of the capacity at which an eviction starts and stops.
 *
 * @returns `undefined` if nothing is to be evicted.
 */
export function watermarksOf(
  eviction: Partial<ConfigValues<typeof evictionField.fields>> = {},
): { high: number; low: number } | undefined {
  const { fields } = evictionField;
  const high = eviction.trigger_watermark ?? fields.trigger_watermark.default;
  const ratio = eviction.eviction_ratio ?? fields.eviction_ratio.default;
  return policyOf(eviction) === undefined ? undefined : { high, low: Math.max(0, high - ratio) };
}

/** The policy that a configuration names; `undefined` if nothing is to be evicted. */
export function policyOf(
  eviction: Partial<ConfigValues<typeof evictionField.fields>> = {},
): EvictionPolicyName | undefined {
  const name = eviction.eviction_policy ?? evictionField.fields.eviction_policy.default;
  return name === "noop" || name === "IsolatedLRU" ? undefined : name;
}

/** What a value of `max_capacity_gb` should be instead; `undefined` if it is valid. */
export function checkCapacity(gib: number): string | undefined {
  return gib === 0 || gib * GIB >= 1 ? undefined : "0, or at least one byte";
}

/**
 * The limits of a {@linkcode Capacity} that a configuration sets.
 *
 * @param gib Capacity in GiB, such as `max_capacity_gb`.
 * @returns `undefined` if the capacity is 0 GiB or not given.
 */
export function boundsOf(
  gib: number | undefined,
  eviction?: Partial<ConfigValues<typeof evictionField.fields>>,
): CapacityBounds | undefined {
  if (gib === undefined || gib === 0) return undefined;
  return {
    capacityBytes: Math.floor(gib * GIB),
    watermark: watermarksOf(eviction),
    policy: policyOf(eviction),
  };
}
