import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import {
  OnnxDecoder,
  type OnnxDecoderOptions,
  type OrtSession,
  TransformersRuntime,
  UnsupportedModelError,
} from "../../src/engine/onnx/mod.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { tinyDecoder } from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";
import { ort } from "./support/ort.ts";
import { DynamicCache, Tensor } from "./support/transformers_classes.ts";

const CHUNK = 16;
const prompt = Array.from({ length: 2 * CHUNK + 1 }, (_, i) => i % 60);
const { model } = tinyDecoder();

/** A cache on a GPUDevice of its own. */
async function openCache(): Promise<TieredCache & { readonly device: WebGpuDevice }> {
  const cache = await TieredCache.open({ l1: { capacityBytes: 2 ** 22, slabBytes: 2 ** 20 } });
  assert(cache.device instanceof WebGpuDevice);
  return cache as TieredCache & { readonly device: WebGpuDevice };
}

function openDecoder(cache: TieredCache, sessionOptions: object = {}): Promise<OnnxDecoder> {
  const options: OnnxDecoderOptions = {
    ort,
    model,
    contextTokens: 256,
    chunkTokens: CHUNK,
    sessionOptions: { logSeverityLevel: 3, ...sessionOptions },
  };
  return OnnxDecoder.open(cache, options);
}

Deno.test("OnnxDecoder: two caches on two devices share a runtime, each on its own device", async () => {
  await using one = await openCache();
  await using two = await openCache();
  assert(one.device.gpuDevice !== two.device.gpuDevice);
  await using first = await openDecoder(one);
  await using second = await openDecoder(two);
  const cold = await Promise.all([first.prefill(prompt), second.prefill(prompt)]);
  const warm = await Promise.all([first.prefill(prompt), second.prefill(prompt)]);
  assertEquals(cold.map(({ reusedTokens }) => reusedTokens), [0, 0]);
  assertEquals(warm.map(({ reusedTokens }) => reusedTokens), [2 * CHUNK, 2 * CHUNK]);
  for (const { logits } of [...cold, ...warm]) assertEquals(logits, cold[0].logits);
});

Deno.test("OnnxDecoder: a session on a device other than the cache's is refused", async () => {
  await using cache = await openCache();
  await using other = await openCache();
  const executionProviders = [{ name: "webgpu", device: other.device.gpuDevice }];
  await assertRejects(
    () => openDecoder(cache, { executionProviders }),
    TypeError,
    "sessionOptions must not have executionProviders: the session computes on the device of the",
  );
  await using decoder = await openDecoder(cache);
  assertEquals((await decoder.prefill(prompt)).computedTokens, prompt.length);
});

/** Creates a session as transformers.js does, with the runtime that it finds. */
async function createSession(): Promise<OrtSession> {
  const runtime = Reflect.get(globalThis, Symbol.for("onnxruntime"));
  return await runtime.InferenceSession.create(model, { logSeverityLevel: 3 });
}

const classes = { DynamicCache, Tensor };

Deno.test("TransformersRuntime refuses a model of another runtime or device, and its K and V", async () => {
  await using one = await openCache();
  await using two = await openCache();
  await using stack = new AsyncDisposableStack();
  const owned = <Session extends OrtSession>(session: Session): Session => {
    stack.defer(() => session.release());
    return session;
  };
  stack.defer(() => void Reflect.deleteProperty(globalThis, Symbol.for("onnxruntime")));
  const config = {};
  const early = owned(
    await ort.InferenceSession.create(model, { executionProviders: ["wasm"] }) as OrtSession,
  );
  const first = TransformersRuntime.install(one, ort);
  const ofFirst = { config, sessions: { model: owned(await createSession()) } };
  const second = TransformersRuntime.install(two, ort);
  const ofSecond = { config, sessions: { model: owned(await createSession()) } };
  for (const wrong of [{ config, sessions: { model: early } }, ofFirst]) {
    assertThrows(
      () => second.prefixesOf(wrong, classes),
      UnsupportedModelError,
      "Model must be loaded by this runtime, on the device of its cache: call TransformersRuntime",
    );
  }
  assertThrows(
    () => first.prefixesOf({ config, sessions: { encoder: early, decoder: early } }, classes),
    UnsupportedModelError,
    "Model must be a decoder with 1 session: received encoder, decoder",
  );

  const pastOf = async (session: OrtSession): Promise<DynamicCache> => {
    const tokens = prompt.length - 1;
    const integers = (values: number[]): never =>
      new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]) as never;
    const feeds: Record<string, never> = {
      "input_ids": integers(prompt.slice(0, tokens)),
      "attention_mask": integers(Array(tokens).fill(1)),
      "position_ids": integers(Array.from({ length: tokens }, (_, i) => i)),
    };
    for (const { name } of session.inputMetadata) {
      feeds[name] ??= new ort.Tensor("float32", new Float32Array(0), [1, 2, 0, 16]) as never;
    }
    const names = session.outputMetadata.map(({ name }) => name);
    const outputs = await session.run(feeds, names);
    const entries = Object.entries(outputs).map(([name, tensor]) => {
      if (name.startsWith("present.")) stack.defer(() => tensor.dispose());
      return [name.replace("present.", "past_key_values."), new Tensor(tensor)];
    });
    return new DynamicCache(Object.fromEntries(entries));
  };
  const prefixes = second.prefixesOf(ofSecond, classes, { chunkTokens: CHUNK });
  const countOf = async (): Promise<number> => {
    const past = Object.entries(await prefixes.load(prompt));
    for (const [, { ort_tensor: tensor }] of past) (tensor as { dispose(): void }).dispose();
    return past.length;
  };
  prefixes.save(prompt, await pastOf(ofFirst.sessions.model));
  assertEquals(await countOf(), 0);
  prefixes.save(prompt, await pastOf(ofSecond.sessions.model));
  assertEquals(await countOf(), 4);
});
