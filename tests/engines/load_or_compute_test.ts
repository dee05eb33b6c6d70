import { assertEquals, assertMatch } from "@std/assert";
import { tinyDecoder } from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";
import {
  type AdapterObject,
  Bitmap,
  concatParts,
  defineL2Adapter,
  fillParts,
  type L2AdapterModule,
} from "../../src/adapter/contract.ts";
import { OnnxDecoder, type OrtSession } from "../../src/engine/onnx/mod.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { seededRandom } from "../support/random.ts";
import { ort } from "./support/ort.ts";

const CHUNK = 16;
const PROMPT = 3 * CHUNK + 5;
/** Least time of a step of the engine in milliseconds. */
const STEP_MS = 40;

/** Objects that outlive a cache, in an adapter whose loads can hang. */
class Shelf {
  isHanging = false;
  readonly #held = new Map<string, Uint8Array>();
  readonly #over = Promise.withResolvers<void>();

  readonly module: L2AdapterModule = defineL2Adapter({
    type: "shelf",
    summary: "Objects in a Map.",
    config: {},
    create: () => ({
      capabilities: {},
      store: (objects: readonly AdapterObject[]) => {
        for (const { key, parts } of objects) this.#held.set(key.id, concatParts(parts));
        const stored = new Bitmap(objects.length, objects.length);
        return Promise.resolve({ stored, bytes: 0 });
      },
      lookupAndLock: (keys) => Promise.resolve(Bitmap.from(keys, ({ id }) => this.#held.has(id))),
      load: async (objects) => {
        if (this.isHanging) await this.#over.promise;
        return Bitmap.from(objects, ({ key, parts }) => fillParts(parts, this.#held.get(key.id)));
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }),
  });

  /** Ends the loads that hang. */
  end(): void {
    this.#over.resolve();
  }

  async openCache(): Promise<TieredCache> {
    return await TieredCache.open({
      device: new HostDevice(),
      l1: { capacityBytes: 4 * 2 ** 20, slabBytes: 2 ** 20 },
      adapters: [this.module],
      l2: [{ type: "shelf" }],
    });
  }
}

/** A decoder each of whose steps takes at least {@linkcode STEP_MS}. */
function openDecoder(cache: TieredCache): Promise<OnnxDecoder> {
  const create = async (model: Uint8Array, options: object): Promise<OrtSession> => {
    const session: OrtSession = await ort.InferenceSession.create(model, options);
    return {
      inputMetadata: session.inputMetadata,
      outputMetadata: session.outputMetadata,
      run: async (feeds, fetches) => {
        await new Promise((resolve) => setTimeout(resolve, STEP_MS));
        return await session.run(feeds, fetches);
      },
      release: () => session.release(),
    };
  };
  return OnnxDecoder.open(cache, {
    ort: { ...ort, InferenceSession: { create } },
    model: tinyDecoder({}).model,
    contextTokens: 256,
    chunkTokens: CHUNK,
    sessionOptions: { logSeverityLevel: 3 },
  });
}

function promptOf(seed: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: PROMPT }, () => random.below(64));
}

Deno.test("OnnxDecoder loads what it computes more slowly, and computes what a slow adapter has", async () => {
  const shelf = new Shelf();
  const cold: Float32Array[] = [];
  {
    await using cache = await shelf.openCache();
    await using decoder = await openDecoder(cache);
    for (const n of [1, 2, 3]) cold.push((await decoder.prefill(promptOf(n))).logits);
    await cache.flush();
  }
  await using cache = await shelf.openCache();
  await using decoder = await openDecoder(cache);
  await decoder.prefill(promptOf(9)); // The decoder measures itself.

  const fast = await decoder.prefill(promptOf(1));
  assertEquals([fast.reusedTokens, fast.l1Tokens], [3 * CHUNK, 0], fast.explanation);
  assertEquals(fast.logits, cold[0]);

  shelf.isHanging = true;
  const late = await decoder.prefill(promptOf(2));
  assertEquals(late.reusedTokens, 0);
  assertMatch(late.explanation, /computed 3 chunks: loading them had not ended after \d+/);
  assertEquals(late.logits, cold[1]);

  const computed = await decoder.prefill(promptOf(3));
  assertEquals(computed.reusedTokens, 0);
  assertMatch(computed.explanation, /computed 3 chunks: loads of the adapter are overdue/);
  assertEquals(computed.logits, cold[2]);
  const { decisions, misses } = cache.reportStatus().prefetch;
  assertEquals([decisions.computedInstead, decisions.wrongGuesses, misses.computed], [2, 1, 2]);
  shelf.end();
});
