import { assert, assertEquals } from "@std/assert";
import { OnnxDecoder } from "../../src/engine/onnx/mod.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { ort } from "./support/ort.ts";
import {
  tinyDecoder,
  type TinyDecoderOptions,
} from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";

const VOCABULARY = 64;
const PROMPTS = 8;

interface Opened extends AsyncDisposable {
  readonly cache: TieredCache;
  readonly decoder: OnnxDecoder;
}

async function open(
  provider: "wasm" | "webgpu",
  { model, chunkTokens, capacityBytes, directory }: {
    model: Uint8Array<ArrayBuffer>;
    chunkTokens: number;
    capacityBytes: number;
    directory?: string;
  },
): Promise<Opened> {
  await using opened = new AsyncDisposableStack();
  const cache = opened.use(
    await TieredCache.open({
      ...(provider === "wasm" ? { device: new HostDevice() } : {}),
      l1: { capacityBytes, slabBytes: 2 ** 18 },
      l2: directory === undefined ? [] : [{ type: "fs", base_path: directory }],
    }),
  );
  const decoder = opened.use(
    await OnnxDecoder.open(cache, {
      ort,
      model,
      chunkTokens,
      contextTokens: 512,
      exact: true,
      sessionOptions: { logSeverityLevel: 3 },
    }),
  );
  const resources = opened.move();
  return { cache, decoder, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

/** A prompt that begins as one before, or a new one. */
function nextPrompt(
  random: ReturnType<typeof seededRandom>,
  before: readonly (readonly number[])[],
): number[] {
  const earlier = before.length > 0 && random.chance(0.8) ? random.pick(before) : [];
  const kept = earlier.slice(0, random.below(earlier.length + 1));
  const added = Array.from({ length: 1 + random.below(60) }, () => random.below(VOCABULARY));
  return [...kept, ...added];
}

/** Prompts, forks, evictions and restarts by a seed; how many tokens were reused. */
async function compare(
  provider: "wasm" | "webgpu",
  options: TinyDecoderOptions,
  seed: number,
): Promise<number> {
  await using directory = await tempDirectory();
  const random = seededRandom(seed);
  const { model } = tinyDecoder({ ...options, seed });
  const chunkTokens = random.pick([4, 8, 16, 24]);
  // Some chunks fit, and others must leave.
  const chunkBytes = 2 * 2 * 4 * 16 * 4 * chunkTokens;
  const capacityBytes = 256 * Math.ceil(chunkBytes * (4 + random.below(12)) / 256);
  const cached = { model, chunkTokens, capacityBytes, directory: directory.path };
  const prompts: number[][] = [];
  let reused = 0;
  await using cold = await open(provider, { model, chunkTokens, capacityBytes });
  for (let life = 0; life < 2; life++) {
    await using warm = await open(provider, cached);
    for (let i = 0; i < PROMPTS / 2; i++) {
      const prompt = nextPrompt(random, prompts);
      prompts.push(prompt);
      const expected = await cold.decoder.prefill(prompt, {
        salt: `never again ${prompts.length}`,
      });
      const { logits, reusedTokens } = await warm.decoder.prefill(prompt);
      assertEquals(expected.reusedTokens, 0);
      assertEquals(logits, expected.logits, `prompt ${i} of life ${life}, seed ${seed}`);
      reused += reusedTokens;
      for (let step = random.chance(0.3) ? 5 + random.below(20) : 0; step > 0; step--) {
        const token = random.below(VOCABULARY);
        await warm.decoder.step(token);
        prompts.push([...warm.decoder.tokens]);
      }
      if (random.chance(0.7)) warm.decoder.save();
      if (random.chance(0.5)) await warm.cache.flush();
      if (random.chance(0.2)) warm.cache.clearL1();
    }
  }
  return reused;
}

const { numRuns, seed: firstSeed = Math.floor(Math.random() * 2 ** 31) } = runs(3);

for (const attention of ["gqa", "mha", "plain"] as const) {
  for (const dtype of ["f32", "f16"] as const) {
    Deno.test(`logits of ${attention} in ${dtype} are those of a decoder without a cache`, async () => {
      let reused = 0;
      for (let run = 0; run < numRuns; run++) {
        reused += await compare("wasm", { attention, dtype }, firstSeed + run);
      }
      for (let run = 0; run < Math.ceil(numRuns / 2); run++) {
        reused += await compare("webgpu", { attention, dtype }, firstSeed + run);
      }
      assert(reused > 0, `seed ${firstSeed}`);
    });
  }
}
