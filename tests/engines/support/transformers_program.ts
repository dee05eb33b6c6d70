/**
 * One process that generates with transformers.js: `DIRECTORY PROVIDER`. Prints JSON.
 *
 * DIRECTORY has the model in `models/tiny`; the cache is in `kv`.
 */
import * as ort from "npm:onnxruntime-web@1.30.0/webgpu";
import { HEAD_DIM } from "../../../docs/examples/chat/tiny_model/tiny_decoder.ts";
import { TransformersRuntime } from "../../../src/engine/onnx/mod.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";

const [directory = "", provider = ""] = Deno.args;
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
await using cache = await TieredCache.open({
  ...(provider === "wasm" ? { device: new HostDevice() } : {}),
  l1: { capacityBytes: 2 ** 22, slabBytes: 2 ** 20 },
  l2: [{ type: "fs", base_path: `${directory}/kv` }],
});
const runtime = TransformersRuntime.install(cache, ort);
const { AutoModelForCausalLM, DynamicCache, Tensor, env } = await import(
  "npm:@huggingface/transformers@4.3.2"
);
env.allowRemoteModels = false;
env.useWasmCache = false;
env.localModelPath = `${directory}/models/`;
ort.env.wasm.wasmPaths = undefined;
const model = await AutoModelForCausalLM.from_pretrained("tiny", { dtype: "fp32", device: "auto" });
const prefixes = runtime.prefixesOf(model, { DynamicCache, Tensor }, { chunkTokens: 16 });

const prompt = Array.from({ length: 70 }, (_, i) => (i * 7919 + 13) % 60);
const integers = (values: number[]): InstanceType<typeof Tensor> =>
  new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
const past = await prefixes.load(prompt);
const reused = past.get_seq_length();
const result = await model.generate({
  "input_ids": integers(prompt),
  "attention_mask": integers(prompt.map(() => 1)),
  "past_key_values": past,
  "max_new_tokens": 6,
  "do_sample": false,
  "return_dict_in_generate": true,
});
const { sequences, past_key_values: computed } = result as {
  sequences: InstanceType<typeof Tensor>;
  past_key_values: InstanceType<typeof DynamicCache>;
};
const tokens = Array.from(sequences.data as BigInt64Array, Number);
const { storedTokens } = prefixes.save(tokens, computed);
await computed.dispose();
await cache.flush();
// Two sequences, as a batch or a search with beams keeps them.
const names = [0, 1].flatMap((n) => [`past_key_values.${n}.key`, `past_key_values.${n}.value`]);
const dims = [2, 2, 64, HEAD_DIM];
const size = dims.reduce((product, count) => product * count, 1);
const batch = Object.fromEntries(
  names.map((name) => [name, new Tensor("float32", new Float32Array(size), dims)]),
);
let refused = "";
try {
  prefixes.save(prompt, new DynamicCache(batch), { salt: "batch" });
} catch (error) {
  refused = String(error);
}
// deno-lint-ignore no-console
console.log(JSON.stringify({ reused, storedTokens, tokens, refused }));
