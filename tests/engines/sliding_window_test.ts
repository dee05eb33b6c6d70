import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import {
  OnnxDecoder,
  type OrtSession,
  type OrtTensor,
  TransformersRuntime,
  UnsupportedModelError,
} from "../../src/engine/onnx/mod.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { tinyDecoder } from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";
import { ort } from "./support/ort.ts";
import { windowDecoder } from "./support/window_decoder.ts";
import { DynamicCache, Tensor } from "./support/transformers_classes.ts";

const CHUNK = 16;
const WINDOW = 40;
const CONFIG = { "max_position_embeddings": 256, "sliding_window": WINDOW };

async function openCache(provider: "wasm" | "webgpu"): Promise<TieredCache> {
  return await TieredCache.open({
    ...(provider === "wasm" ? { device: new HostDevice() } : {}),
    l1: { capacityBytes: 2 ** 22, slabBytes: 2 ** 20 },
  });
}

function openDecoder(
  cache: TieredCache,
  model: Uint8Array<ArrayBuffer>,
  config: object = CONFIG,
): Promise<OnnxDecoder> {
  const sessionOptions = { logSeverityLevel: 3 };
  return OnnxDecoder.open(cache, {
    ort,
    model,
    config: config as Record<string, unknown>,
    chunkTokens: CHUNK,
    sessionOptions,
  });
}

const promptOf = (tokens: number): number[] => Array.from({ length: tokens }, (_, i) => i % 60);

Deno.test("OnnxDecoder: a sliding window in a graph that returns all K and V is cached", async () => {
  await using cache = await openCache("wasm");
  await using decoder = await openDecoder(cache, tinyDecoder().model);
  const prompt = promptOf(2 * WINDOW);
  const cold = await decoder.prefill(prompt);
  const warm = await decoder.prefill(prompt);
  assertEquals([cold.reusedTokens, warm.reusedTokens], [0, 4 * CHUNK]);
  assertEquals(warm.logits, cold.logits);
});

for (const provider of ["wasm", "webgpu"] as const) {
  Deno.test(`OnnxDecoder: K and V cut to a window on ${provider} are refused, and not cached`, async () => {
    await using cache = await openCache(provider);
    await using decoder = await openDecoder(cache, windowDecoder(WINDOW));
    await assertRejects(
      () => decoder.prefill(promptOf(WINDOW + CHUNK)),
      UnsupportedModelError,
      "received those of 40; its sliding_window is 40: use an export that returns all, or sequences",
    );
    // Chunks before the end of the window are complete.
    assertEquals((await decoder.prefill(promptOf(WINDOW))).reusedTokens, 2 * CHUNK);
    await assertRejects(
      () => decoder.step(1),
      UnsupportedModelError,
      "of all 41 tokens: received those of 40",
    );
    assertEquals(decoder.tokens.length, WINDOW);
    decoder.save();
    await using narrow = await openDecoder(cache, windowDecoder(CHUNK - 1));
    await assertRejects(() => narrow.prefill(promptOf(2 * CHUNK)), UnsupportedModelError);
    assertEquals((await narrow.prefill(promptOf(CHUNK - 1))).reusedTokens, 0);
  });
}

Deno.test("OnnxDecoder: the message names the window only of layers that have one", async () => {
  await using cache = await openCache("wasm");
  const configs = [
    [{ "text_config": { "sliding_window": WINDOW } }, true],
    [{ "sliding_window": WINDOW, "layer_types": ["full_attention", "sliding_attention"] }, true],
    [{ "sliding_window": WINDOW, "layer_types": ["full_attention"] }, false],
    [{ "sliding_window": WINDOW, "use_sliding_window": false }, false],
    [{ "sliding_window": null, "text_config": null }, false],
    [{ "sliding_window": "wide" }, false],
    [{}, false],
  ] as const;
  for (const [config, isNamed] of configs) {
    await using decoder = await openDecoder(cache, windowDecoder(WINDOW), {
      "max_position_embeddings": 256,
      ...config,
    });
    const error = await assertRejects(
      () => decoder.prefill(promptOf(WINDOW + 1)),
      UnsupportedModelError,
      "of all 41 tokens: received those of 40",
    );
    assertEquals(error.message.includes("sliding_window"), isNamed, JSON.stringify(config));
  }
});

Deno.test("TransformersPrefixes: K and V cut to a window are not saved", async () => {
  await using cache = await openCache("wasm");
  const runtime = TransformersRuntime.install(cache, ort);
  const installed = Reflect.get(globalThis, Symbol.for("onnxruntime"));
  Reflect.deleteProperty(globalThis, Symbol.for("onnxruntime"));
  const session: OrtSession = await installed.InferenceSession.create(windowDecoder(WINDOW));
  const model = { config: CONFIG, sessions: { model: session } };
  const prefixes = runtime.prefixesOf(model, { DynamicCache, Tensor }, { chunkTokens: CHUNK });
  const pastOf = async (tokens: readonly number[]): Promise<DynamicCache> => {
    const ids = BigInt64Array.from(tokens, BigInt);
    const nothing = new ort.Tensor("float32", new Float32Array(0), [1, 1, 0, 4]);
    const outputs = await session.run({
      "input_ids": new ort.Tensor("int64", ids, [1, ids.length]) as OrtTensor,
      "past_key_values.0.key": nothing as OrtTensor,
      "past_key_values.0.value": nothing as OrtTensor,
    }, ["present.0.key", "present.0.value"]);
    const entries = Object.entries(outputs).map(([name, tensor]) => [
      name.replace("present.", "past_key_values."),
      new Tensor(tensor),
    ]);
    return new DynamicCache(Object.fromEntries(entries));
  };
  const complete = promptOf(WINDOW);
  assertEquals(prefixes.save(complete, await pastOf(complete)).storedTokens, 2 * CHUNK);
  const long = promptOf(WINDOW + CHUNK).reverse();
  const cut = await pastOf(long);
  assertThrows(
    () => prefixes.save(long, cut),
    UnsupportedModelError,
    "of all 56 tokens: received those of 40; its sliding_window is 40",
  );
  assertEquals(Object.keys(await prefixes.load(long)), []);
  await session.release();
});
