import type { KvMemory } from "./kv_memory.ts";
import type { Ort } from "./ort.ts";

/**
 * The revision of a model's KV: the digest of its bytes and, unless `identity` is `model`, the
 * runtime, its execution provider and the device, and the optimization level of the graph if the
 * session's options name one: KV differs between them in the last bits.
 *
 * @throws {RangeError} If the identity is unknown.
 */
export function revisionOf(
  digest: string,
  identity: "runtime" | "model" = "runtime",
  { env: { versions } }: Ort,
  { provider, description }: KvMemory,
  sessionOptions: object = {},
): string {
  if (identity === "model") return digest;
  if (identity !== "runtime") {
    throw new RangeError(`identity must be "runtime" or "model": received ${typeof identity}`);
  }
  const runtime = `onnxruntime-web ${versions.web ?? versions.common}`;
  const { graphOptimizationLevel: level } = sessionOptions as { graphOptimizationLevel?: string };
  const graph = level === undefined ? [] : [`graph optimization ${level}`];
  return [digest, provider, runtime, description, ...graph].join("; ");
}
