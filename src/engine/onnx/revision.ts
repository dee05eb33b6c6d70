import type { KvMemory } from "./kv_memory.ts";
import type { Ort } from "./ort.ts";

/**
 * What names the KV of a model: the digest of its bytes and, since KV differs in the last bits
 * between them, the runtime, its execution provider and the device.
 *
 * @throws {RangeError} If the identity is unknown.
 */
export function revisionOf(
  digest: string,
  identity: "runtime" | "model" = "runtime",
  { env: { versions } }: Ort,
  { provider, description }: KvMemory,
): string {
  if (identity === "model") return digest;
  if (identity !== "runtime") {
    throw new RangeError(`identity must be "runtime" or "model": received ${typeof identity}`);
  }
  const runtime = `onnxruntime-web ${versions.web ?? versions.common}`;
  return [digest, provider, runtime, description].join("; ");
}
