/**
 * Decoders on onnxruntime-web that start the prefill after the cached prefix.
 *
 * @example Decode with a cache that survives restarts
 * ```ts ignore
 * import * as ort from "npm:onnxruntime-web@1.30.0/webgpu";
 * import { TieredCache } from "@kvtier/kvtier";
 * import { OnnxDecoder, requestEngineDevice } from "@kvtier/kvtier/onnx";
 *
 * using device = await requestEngineDevice();
 * await using cache = await TieredCache.open({ device, l2: [{ type: "fs", base_path: "kv" }] });
 * await using decoder = await OnnxDecoder.open(cache, {
 *   ort,
 *   model: "model.onnx",
 *   config: JSON.parse(await Deno.readTextFile("config.json")),
 * });
 * const { logits, reusedTokens } = await decoder.prefill(tokens);
 * ```
 *
 * @module
 */
export type { CachedModelOptions } from "./cached_model.ts";
export { type ModelConfig, UnsupportedModelError } from "./decoder_signature.ts";
export { requestEngineDevice } from "./engine_device.ts";
export type { ModelSource } from "./model_source.ts";
export {
  OnnxDecoder,
  type OnnxDecoderOptions,
  type PrefillOptions,
  type PrefillResult,
} from "./onnx_decoder.ts";
export type { Ort, OrtSession, OrtTensor, OrtTensors, OrtValueMetadata } from "./ort.ts";
export {
  type Transformers,
  type TransformersModel,
  TransformersPrefixes,
  type TransformersPrefixesOptions,
  TransformersRuntime,
  type TransformersTensor,
} from "./transformers.ts";
