import { assertEquals } from "@std/assert";
import { walk } from "@std/fs";
import { type ChatEnd, ChatEngine } from "../../docs/examples/chat/chat_engine.ts";
import { tinyModel } from "../../docs/examples/chat/model_files.ts";
import { OnnxDecoder, type OnnxDecoderOptions } from "../../src/engine/onnx/mod.ts";
import type { TieredCacheOptions } from "../../src/cache_options.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { mapAdapter } from "../support/adapters.ts";
import { optionsOf } from "../support/caches.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { ort } from "./support/ort.ts";

/** Answers one question with a cache of its own. */
async function answer(
  options: TieredCacheOptions,
  { closeMs = 10_000, ...decoding }: Pick<OnnxDecoderOptions, "deadline"> & { closeMs?: number } =
    {},
): Promise<ChatEnd & { text: string }> {
  const { decoder: model, format } = tinyModel();
  await using cache = await TieredCache.open({ device: new HostDevice(), ...options });
  await using decoder = await OnnxDecoder.open(cache, { ort, ...model, ...decoding });
  const chat = new ChatEngine(decoder, format);
  const pieces = chat.answer({
    messages: [{ role: "user", content: "All work and no play. ".repeat(30) }],
    maxTokens: 12,
    temperature: 0,
    topP: 1,
    salt: "",
    signal: new AbortController().signal,
  });
  let text = "";
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) {
      await cache.close({ deadlineMs: closeMs });
      return { ...value, text };
    }
    text += value;
  }
}

Deno.test("chat: with objects that are damaged, the answer comes, computed", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: directory.path }];
  const cold = await answer({ l2 });
  assertEquals(cold.cachedTokens, 0);
  assertEquals(await answer({ l2 }), { ...cold, cachedTokens: 512 });
  for await (const { path, isFile } of walk(directory.path)) {
    if (!isFile || (await Deno.stat(path)).size < 1000) continue;
    using file = await Deno.open(path, { read: true, write: true });
    await file.seek(500, Deno.SeekMode.Start);
    await file.write(Uint8Array.of(1, 2, 3, 4));
  }
  assertEquals(await answer({ l2 }), cold);
});

Deno.test("chat: with an adapter that has no room, the answer comes, computed", async () => {
  await using directory = await tempDirectory();
  const l2 = [{ type: "fs", base_path: directory.path, max_capacity_gb: 1e-6 }];
  const cold = await answer({ l2 });
  assertEquals(cold.cachedTokens, 0);
  assertEquals(await answer({ l2 }), cold);
});

Deno.test("chat: with an adapter that finds objects and never brings them, too", async () => {
  const held = mapAdapter();
  const l1 = { capacityBytes: 2 ** 26 };
  const cold = await answer(optionsOf({ held }, { l1 }));
  assertEquals(await answer(optionsOf({ held }, { l1 })), { ...cold, cachedTokens: 512 });
  const hanging = { ...held, load: () => new Promise<never>(() => {}) };
  // Only the deadline of the match can end the wait.
  const options = optionsOf({ hanging }, { l1, timeouts: { loadMs: 1e6 } });
  assertEquals(await answer(options, { deadline: { baseMs: 200 }, closeMs: 200 }), cold);
});
