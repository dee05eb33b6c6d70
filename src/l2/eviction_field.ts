import type { ConfigValues, NumberField, StringField } from "./adapter_config.ts";

/** Policies of LMCache that there are not, and what to use instead. */
const unsupportedPolicies: Readonly<Record<string, string>> = {
  IsolatedLRU: "LRU or noop: what one salt may use is bounded by the quotas of the cache",
  ARC: "LRU or noop: ARC is not implemented",
};

/**
 * The configuration key `eviction` of an adapter that bounds itself, with LMCache's names and
 * defaults.
 */
export const evictionField = {
  type: "object",
  help: "How room is made.",
  fields: {
    eviction_policy: {
      type: "string",
      oneOf: ["LRU", "noop", "IsolatedLRU", "ARC"],
      default: "LRU",
      check: (policy: string) => unsupportedPolicies[policy],
      help: "LRU: what was used longest ago leaves first; noop: nothing leaves. IsolatedLRU and " +
        "ARC are LMCache's, and refused here.",
    },
    trigger_watermark: {
      type: "number",
      exclusiveMinimum: 0,
      maximum: 1,
      default: 0.8,
      help: "Share of the capacity at which objects are removed. More than 1 is never reached: " +
        "where nothing is to be removed, use eviction_policy noop.",
    },
    eviction_ratio: {
      type: "number",
      exclusiveMinimum: 0,
      maximum: 1,
      default: 0.2,
      help: "Share of the capacity that is removed then.",
    },
  },
} as const satisfies {
  type: "object";
  help: string;
  fields: Record<string, StringField | NumberField>;
};

/**
 * The shares of the capacity above which objects are removed, and which are left then.
 *
 * @returns `undefined` if nothing is to be removed.
 */
export function watermarksOf(
  eviction: Partial<ConfigValues<typeof evictionField.fields>> = {},
): { high: number; low: number } | undefined {
  const { fields } = evictionField;
  const policy = eviction.eviction_policy ?? fields.eviction_policy.default;
  const high = eviction.trigger_watermark ?? fields.trigger_watermark.default;
  const ratio = eviction.eviction_ratio ?? fields.eviction_ratio.default;
  return policy === "noop" ? undefined : { high, low: Math.max(0, high - ratio) };
}
