import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import {
  OnnxDecoder,
  type OnnxDecoderOptions,
  type OrtSession,
  UnsupportedModelError,
} from "../../src/engine/onnx/mod.ts";
import { DeviceLostError } from "../../src/memory/memory_device.ts";
import type { TieredCacheOptions } from "../../src/cache_options.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { ort } from "./support/ort.ts";
import {
  type Attention,
  tinyDecoder,
  type TinyDecoderOptions,
} from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";
import { seededRandom } from "../support/random.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const CHUNK = 16;
const CONTEXT = 256;
const MIB = 2 ** 20;

type Provider = "wasm" | "webgpu";

async function openCache(
  provider: Provider,
  options: TieredCacheOptions = {},
): Promise<TieredCache> {
  return await TieredCache.open({
    ...(provider === "wasm" ? { device: new HostDevice() } : {}),
    l1: { capacityBytes: 4 * MIB, slabBytes: MIB },
    ...options,
  });
}

function openDecoder(
  cache: TieredCache,
  model: TinyDecoderOptions = {},
  options: Partial<OnnxDecoderOptions> = {},
): Promise<OnnxDecoder> {
  return OnnxDecoder.open(cache, {
    ort,
    model: tinyDecoder(model).model,
    contextTokens: CONTEXT,
    chunkTokens: CHUNK,
    sessionOptions: { logSeverityLevel: 3 },
    ...options,
  });
}

function promptOf(seed: number, tokens: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: tokens }, () => random.below(64));
}

const models: readonly TinyDecoderOptions[] = (["gqa", "mha", "plain"] as const).flatMap(
  (attention: Attention) => (["f32", "f16"] as const).map((dtype) => ({ attention, dtype })),
);

for (const provider of ["wasm", "webgpu"] as const) {
  for (const model of models) {
    const name = `${model.attention} ${model.dtype} on ${provider}`;
    Deno.test(`OnnxDecoder: logits of ${name} are bit-equal, cached or not`, async () => {
      await using cache = await openCache(provider);
      await using decoder = await openDecoder(cache, model);
      assertEquals(decoder.provider, provider);
      const prompt = promptOf(1, 3 * CHUNK + 5);
      const cold = await decoder.prefill(prompt);
      assertEquals([cold.reusedTokens, cold.computedTokens], [0, prompt.length]);
      const warm = await decoder.prefill(prompt);
      assertEquals([warm.reusedTokens, warm.l1Tokens], [3 * CHUNK, 3 * CHUNK]);
      assertEquals(warm.logits, cold.logits);
      const fork = [...prompt.slice(0, 2 * CHUNK + 3), ...promptOf(2, 30)];
      const forked = await decoder.prefill(fork);
      assertEquals(forked.reusedTokens, 2 * CHUNK);
      const uncached = await decoder.prefill(fork, { salt: "another tenant" });
      assertEquals(uncached.reusedTokens, 0);
      assertEquals(forked.logits, uncached.logits);
    });
  }
}

/** The runtime, whose sessions call `before` before each run. */
function ortThat(before: (run: number) => void): OnnxDecoderOptions["ort"] {
  const create = async (model: Uint8Array, options: object): Promise<OrtSession> => {
    const session: OrtSession = await ort.InferenceSession.create(model, options);
    let runs = 0;
    return {
      inputMetadata: session.inputMetadata,
      outputMetadata: session.outputMetadata,
      run: (feeds, fetches) => {
        before(++runs);
        return session.run(feeds, fetches);
      },
      release: () => session.release(),
    };
  };
  return { ...ort, InferenceSession: { create } };
}

Deno.test("OnnxDecoder: a new process resumes from disk, and decodes as the first one did", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: directory.path }];
  const prompt = promptOf(3, 2 * CHUNK + 7);
  const decoded: number[][] = [];
  for (const reused of [0, 2 * CHUNK]) {
    await using cache = await openCache("wasm", { l2 });
    await using decoder = await openDecoder(cache);
    let { logits, reusedTokens, l1Tokens } = await decoder.prefill(prompt);
    assertEquals([reusedTokens, l1Tokens], [reused, 0]);
    const tokens: number[] = [];
    for (let i = 0; i < 10; i++) {
      const token = logits.indexOf(Math.max(...logits));
      tokens.push(token);
      logits = await decoder.step(token);
    }
    assertEquals(decoder.tokens, [...prompt, ...tokens]);
    decoded.push(tokens);
    await cache.flush();
  }
  assertEquals(decoded[1], decoded[0]);
});

Deno.test("OnnxDecoder: save() caches what was decoded, and nothing that was not computed", async () => {
  await using cache = await openCache("wasm");
  await using decoder = await openDecoder(cache);
  const prompt = promptOf(4, CHUNK + 2);
  await decoder.prefill(prompt);
  for (const token of promptOf(5, CHUNK)) await decoder.step(token);
  assertEquals(decoder.save().storedTokens, CHUNK);
  const conversation = [...decoder.tokens, ...promptOf(6, 5)];
  const { reusedTokens, logits } = await decoder.prefill(conversation);
  assertEquals(reusedTokens, 2 * CHUNK);
  const cold = await decoder.prefill(conversation, { salt: "other" });
  const difference = Math.max(...logits.map((x, i) => Math.abs(x - (cold.logits[i] ?? NaN))));
  assert(difference < 1e-4, `${difference}`);
});

Deno.test("OnnxDecoder: an exact decoder saves nothing inexact, and finds nothing inexact", async () => {
  await using cache = await openCache("wasm");
  await using rough = await openDecoder(cache);
  await using exact = await openDecoder(cache, {}, { exact: true });
  const prompt = promptOf(4, CHUNK + 2);
  const answer = promptOf(5, CHUNK);
  for (const decoder of [rough, exact]) {
    await decoder.prefill(prompt);
    for (const token of answer) await decoder.step(token);
    decoder.save();
  }
  const next = [...prompt, ...answer, 1, 2, 3];
  assertEquals((await rough.prefill(next)).reusedTokens, 2 * CHUNK);
  assertEquals((await exact.prefill(next)).reusedTokens, CHUNK);
});

Deno.test("OnnxDecoder: of a prompt of whole chunks the last one is computed again", async () => {
  await using cache = await openCache("wasm");
  await using decoder = await openDecoder(cache);
  const prompt = promptOf(7, 3 * CHUNK);
  const cold = await decoder.prefill(prompt);
  const warm = await decoder.prefill(prompt);
  assertEquals([warm.reusedTokens, warm.computedTokens], [2 * CHUNK, CHUNK]);
  assertEquals(warm.logits, cold.logits);
  assertEquals((await decoder.prefill([...prompt, 1])).reusedTokens, 3 * CHUNK);
});

Deno.test("OnnxDecoder: what an interrupted prefill has finished stays cached", async () => {
  await using cache = await openCache("wasm");
  const stop = new AbortController();
  const interrupted = ortThat((run) => run === 2 && stop.abort(new Error("client is gone")));
  await using decoder = await openDecoder(cache, {}, { ort: interrupted });
  const prompt = promptOf(8, 4 * CHUNK + 1);
  await assertRejects(
    () => decoder.prefill(prompt, { signal: stop.signal }),
    Error,
    "client is gone",
  );
  assertThrows(() => decoder.save(), Error, "prefill()");
  assertEquals((await decoder.prefill(prompt)).reusedTokens, 2 * CHUNK);
});

Deno.test("OnnxDecoder: on wasm too, the event loop turns between chunks and between tokens", async () => {
  await using cache = await openCache("wasm");
  await using decoder = await openDecoder(cache);
  const stop = new AbortController();
  setTimeout(() => stop.abort(new Error("client is gone")), 0);
  const prompt = promptOf(8, 12 * CHUNK + 1);
  await assertRejects(
    () => decoder.prefill(prompt, { signal: stop.signal }),
    Error,
    "client is gone",
  );
  await decoder.prefill(prompt.slice(0, CHUNK + 1));
  let hasTurned = false;
  setTimeout(() => hasTurned = true, 0);
  for (let i = 0; i < 10; i++) await decoder.step(1);
  assert(hasTurned);
});

Deno.test("OnnxDecoder: a runtime that fails costs the call, not the sequence or the cache", async () => {
  await using cache = await openCache("wasm");
  const failing = ortThat((run) => {
    if (run === 2 || run === 5) throw new Error("out of memory");
  });
  await using decoder = await openDecoder(cache, {}, { ort: failing });
  const prompt = promptOf(9, CHUNK + 1);
  await assertRejects(() => decoder.prefill(prompt), Error, "out of memory");
  const { reusedTokens, logits } = await decoder.prefill(prompt);
  assertEquals(reusedTokens, CHUNK);
  const next = await decoder.step(1);
  await assertRejects(() => decoder.step(2), Error, "out of memory");
  assertEquals(decoder.tokens, [...prompt, 1]);
  await decoder.step(2);
  assertNotEquals(next, logits);
});

Deno.test("OnnxDecoder: tenants, models and adapters of the model share nothing", async () => {
  await using cache = await openCache("wasm");
  await using decoder = await openDecoder(cache);
  const prompt = promptOf(10, CHUNK + 1);
  await decoder.prefill(prompt, { salt: "alice" });
  assertEquals((await decoder.prefill(prompt, { salt: "bob" })).reusedTokens, 0);
  assertEquals((await decoder.prefill(prompt, { extraKey: "lora" })).reusedTokens, 0);
  assertEquals((await decoder.prefill(prompt, { salt: "alice" })).reusedTokens, CHUNK);
  await using other = await openDecoder(cache, { seed: 8 });
  assertEquals((await other.prefill(prompt, { salt: "alice" })).reusedTokens, 0);
});

Deno.test("OnnxDecoder: devices share KV only if the model alone is its identity", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: directory.path }];
  const prompt = promptOf(10, 2 * CHUNK + 1);
  for (const [identity, reused] of [["runtime", 0], ["model", 2 * CHUNK]] as const) {
    const results = [];
    for (const provider of ["wasm", "webgpu"] as const) {
      await using cache = await openCache(provider, { l2 });
      await using decoder = await openDecoder(cache, {}, { identity });
      results.push(await decoder.prefill(prompt));
    }
    const [first, second] = results;
    assertEquals([first?.reusedTokens, second?.reusedTokens], [0, reused], identity);
    const difference = Math.max(
      ...first?.logits.map((x, i) => Math.abs(x - (second?.logits[i] ?? NaN))) ?? [NaN],
    );
    assert(difference < 1e-4, `${difference}`);
  }
  await using cache = await openCache("wasm");
  await assertRejects(
    () => openDecoder(cache, {}, { identity: "file" as "model" }),
    RangeError,
    "identity",
  );
});

Deno.test("OnnxDecoder: sessions whose graphs are optimized differently share nothing", async () => {
  await using cache = await openCache("wasm");
  const prompt = promptOf(13, 2 * CHUNK + 1);
  const reused: number[] = [];
  for (const level of ["all", "disabled", "disabled"]) {
    const sessionOptions = { graphOptimizationLevel: level };
    await using decoder = await openDecoder(cache, {}, { sessionOptions });
    reused.push((await decoder.prefill(prompt)).reusedTokens);
  }
  assertEquals(reused, [0, 0, 2 * CHUNK]);
});

Deno.test("OnnxDecoder: a model file that is replaced under its name is another model", async () => {
  await using directory = await tempDirectory();
  await using cache = await openCache("wasm");
  const path = `${directory.path}/model.onnx`;
  const prompt = promptOf(11, CHUNK + 1);
  for (const [seed, reused] of [[1, 0], [1, CHUNK], [2, 0], [1, CHUNK]] as const) {
    await Deno.writeFile(path, tinyDecoder({ seed }).model);
    await using decoder = await openDecoder(cache, {}, { model: path });
    assertEquals((await decoder.prefill(prompt)).reusedTokens, reused, `seed ${seed}`);
  }
});

Deno.test("OnnxDecoder: weights in files of their own belong to the model", async () => {
  await using directory = await tempDirectory();
  await using cache = await openCache("wasm");
  const prompt = promptOf(12, CHUNK + 1);
  const inside = await openDecoder(cache);
  const { logits } = await inside.prefill(prompt);
  await inside[Symbol.asyncDispose]();
  for (const [seed, reused] of [[7, 0], [7, CHUNK], [8, 0]] as const) {
    const { model, external } = tinyDecoder({ seed, externalName: "model.onnx_data" });
    const data = new URL(`file://${directory.path}/weights`);
    await Deno.writeFile(data, external as Uint8Array);
    const externalData = { "model.onnx_data": data };
    await using decoder = await openDecoder(cache, {}, { model, externalData });
    const result = await decoder.prefill(prompt);
    assertEquals(result.reusedTokens, reused);
    if (seed === 7) assertEquals(result.logits, logits);
  }
});

Deno.test("OnnxDecoder refuses prompts and tokens that it cannot compute", async () => {
  await using cache = await openCache("wasm");
  await using decoder = await openDecoder(cache);
  await assertRejects(() => decoder.prefill([]), RangeError, "at least 1 token");
  await assertRejects(() => decoder.prefill(promptOf(1, CONTEXT + 1)), RangeError, "256 tokens");
  await assertRejects(() => decoder.prefill([1, 64]), RangeError, "from 0 to 63: received 64");
  await assertRejects(() => decoder.prefill([1, -1]), RangeError, "received -1");
  await assertRejects(() => decoder.step(1), Error, "call prefill() first");
  await decoder.prefill(promptOf(1, CONTEXT));
  await assertRejects(() => decoder.step(1), RangeError, "256 tokens");
});

Deno.test("OnnxDecoder: one call at a time, and none after it is closed", async () => {
  await using cache = await openCache("wasm");
  const decoder = await openDecoder(cache);
  const prompt = promptOf(13, CHUNK + 1);
  const running = decoder.prefill(prompt);
  await assertRejects(() => decoder.prefill(prompt), Error, "for each conversation");
  const closed = decoder[Symbol.asyncDispose]();
  await assertRejects(() => decoder.prefill(prompt), Error, "closed");
  assertEquals((await running).computedTokens, CHUNK + 1);
  await closed;
  await decoder[Symbol.asyncDispose]();
});

for (const provider of ["wasm", "webgpu"] as const) {
  Deno.test(`OnnxDecoder: two decoders on ${provider} take turns`, async () => {
    await using cache = await openCache(provider);
    await using one = await openDecoder(cache);
    await using two = await openDecoder(cache);
    const prompts = [promptOf(14, 2 * CHUNK + 1), promptOf(15, 2 * CHUNK + 1)] as const;
    const together = await Promise.all([one.prefill(prompts[0]), two.prefill(prompts[1])]);
    for (const [i, prompt] of prompts.entries()) {
      const alone = await one.prefill(prompt);
      assertEquals(alone.reusedTokens, 2 * CHUNK);
      assertEquals(alone.logits, together[i]?.logits);
    }
  });
}

Deno.test("OnnxDecoder: a device that was lost is said so, and not computed on", async () => {
  await using cache = await openCache("webgpu");
  await using decoder = await openDecoder(cache);
  const lost = cache.device;
  lost[Symbol.dispose]();
  await lost.lost;
  await assertRejects(() => decoder.prefill([1, 2]), DeviceLostError, "open another decoder");
  await cache.attachDevice();
  await assertRejects(() => decoder.prefill([1, 2]), DeviceLostError, "open another decoder");
});

Deno.test("OnnxDecoder.open() says what it needs to know", async () => {
  await using cache = await openCache("wasm");
  const { model } = tinyDecoder();
  await assertRejects(
    () => OnnxDecoder.open(cache, { ort, model }),
    UnsupportedModelError,
    "config.json",
  );
  await using decoder = await OnnxDecoder.open(cache, {
    ort,
    model,
    config: { "max_position_embeddings": 99 },
  });
  assertEquals([decoder.contextTokens, decoder.chunkTokens], [99, 256]);
  await assertRejects(
    () => openDecoder(cache, {}, { contextTokens: 0 }),
    RangeError,
    "contextTokens",
  );
  await assertRejects(
    () => openDecoder(cache, {}, { model: "/no/such.onnx" }),
    Error,
    "/no/such.onnx",
  );
});

Deno.test("OnnxDecoder: float16 on a device without shader-f16 is refused", async () => {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter?.requestDevice();
  assert(device !== undefined);
  {
    await using cache = await openCache("webgpu", { device });
    await assertRejects(
      () => openDecoder(cache, { dtype: "f16" }),
      UnsupportedModelError,
      "shader-f16",
    );
  }
  device.destroy();
});
