import { ConfigError } from "../l2/adapter_error.ts";
import type { AdapterEviction } from "./eviction_controller.ts";

const GIB = 2 ** 30;
/** Beyond it, bytes are no safe integers. */
const MAX_GIB = 2 ** 22;
const KEYS = ["eviction_policy", "max_capacity_gb", "trigger_watermark", "eviction_ratio"];

/**
 * The `eviction` block of an adapter's configuration: `max_capacity_gb`, `trigger_watermark` (the
 * share of it at which objects are removed, 0.8) and `eviction_ratio` (the share that is removed
 * then, 0.2). `eviction_policy` is `LRU`, or `noop`, with which only quotas count.
 *
 * @throws {ConfigError} If a key is unknown, the capacity is missing or a value cannot work.
 */
export function parseEviction(type: string, block: unknown): AdapterEviction {
  const fail = (key: string, expected: string, received: unknown): never => {
    throw new ConfigError({ adapter: `${type} adapter`, key, expected, received });
  };
  if (typeof block !== "object" || block === null || Array.isArray(block)) {
    return fail("eviction", "an object", block);
  }
  const values = block as Record<string, unknown>;
  for (const [key, value] of Object.entries(values)) {
    if (!KEYS.includes(key)) fail(`eviction.${key}`, `one of ${KEYS.join(", ")}`, value);
  }
  const number = (key: string, most: number): number => {
    const value = values[key];
    if (typeof value === "number" && value > 0 && value <= most) return value;
    const range = most < Infinity ? `a number above 0, at most ${most}` : "a number above 0";
    return fail(`eviction.${key}`, range, value);
  };
  const { eviction_policy: policy = "LRU" } = values;
  if (policy !== "LRU" && policy !== "noop") {
    fail("eviction.eviction_policy", '"LRU" or "noop"', policy);
  }
  const isBounded = policy === "LRU";
  const capacityBytes = isBounded || values.max_capacity_gb !== undefined
    ? Math.floor(number("max_capacity_gb", MAX_GIB) * GIB)
    : 0;
  const highWatermark = values.trigger_watermark === undefined
    ? 0.8
    : number("trigger_watermark", 1);
  const ratio = values.eviction_ratio === undefined ? 0.2 : number("eviction_ratio", 1);
  const lowWatermark = Math.max(0, highWatermark - ratio);
  return { ...(isBounded ? { capacityBytes } : {}), highWatermark, lowWatermark };
}
