import { assert, assertEquals } from "@std/assert";
import { OnnxDecoder, type PrefillResult } from "../../src/engine/onnx/mod.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { ort } from "./support/ort.ts";
import {
  tinyDecoder,
  type TinyDecoderOptions,
} from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";

const CHUNK = 128;
const PROMPT = Array.from({ length: 4000 }, (_, i) => (i * 7919 + i * i) % 64);
const REUSED = 31 * CHUNK;
const CASES: readonly { provider: "wasm" | "webgpu"; model: TinyDecoderOptions }[] = [
  { provider: "wasm", model: { attention: "mha", layers: 4 } },
  { provider: "webgpu", model: { attention: "plain", layers: 1 } },
];

for (const { provider, model: options } of CASES) {
  Deno.test(`OnnxDecoder on ${provider}: from disk, only the end of a long prompt is computed`, async () => {
    using device = provider === "wasm" ? new HostDevice() : await WebGpuDevice.request();
    assert(device !== null);
    const { model } = tinyDecoder({ ...options, positions: 4096 });
    /** Of a cache whose L1 is empty. */
    const prefill = async (
      directory: string,
      prompt: readonly number[],
    ): Promise<PrefillResult> => {
      const l2 = [{ type: "fs", base_path: directory }];
      await using cache = await TieredCache.open({ device, l2 });
      await using decoder = await OnnxDecoder.open(cache, {
        ort,
        model,
        contextTokens: 4096,
        chunkTokens: CHUNK,
        sessionOptions: { logSeverityLevel: 3 },
      });
      const result = await decoder.prefill(prompt);
      await cache.flush();
      return result;
    };
    await using directory = await tempDirectory();
    const first = await prefill(directory.path, PROMPT);
    assertEquals([first.reusedTokens, first.computedTokens], [0, PROMPT.length]);
    const again = await prefill(directory.path, PROMPT);
    const { logits, explanation: _, ...counts } = again;
    const computedTokens = PROMPT.length - REUSED;
    assertEquals(counts, { reusedTokens: REUSED, l1Tokens: 0, computedTokens });
    assertEquals(logits, first.logits);
  });
}
