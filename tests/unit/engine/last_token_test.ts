import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { type KvGroup, PrefixCache, type SequenceKv } from "../../../src/engine/mod.ts";
import { type KvLayout, kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { deviceTest } from "../../support/devices.ts";
import { EngineTensors } from "../../support/kv_tensors.ts";
import { runs } from "../../support/runs.ts";

const MODEL = { name: "test/model" };
/** 4 tokens a chunk, 16 bytes a token. */
const LAYOUT = kvLayout({ layers: 2, kvHeads: 2, headDim: 4, dtype: "f16", chunkTokens: 4 });

function prompt(length: number, first = 1): number[] {
  return Array.from({ length }, (_, i) => first + i * 7);
}

async function openPrefixes(
  layout: KvLayout | readonly KvGroup[] = LAYOUT,
  device: TieredCache["device"] = new HostDevice(),
): Promise<{ cache: TieredCache; prefixes: PrefixCache } & AsyncDisposable> {
  const cache = await TieredCache.open({ device, l1: { capacityBytes: 4 * 2 ** 20 } });
  const prefixes = new PrefixCache(cache, { model: MODEL, layout });
  return { cache, prefixes, [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose]() };
}

/** A decoder whose K and V of a token depend on all tokens up to it: 4 bytes each. */
class Decoder {
  readonly kv = [{ key: new Uint8Array(4 * 1024), value: new Uint8Array(4 * 1024) }];

  /** Computes the K and V of tokens from `start` on. */
  run(tokens: readonly number[], start: number): void {
    const [{ key, value }] = this.kv as [{ key: Uint8Array; value: Uint8Array }];
    let state = 1;
    for (const [i, token] of tokens.entries()) {
      state = Math.imul(state ^ token, 0x9e3779b1) >>> 0;
      if (i < start) continue;
      new DataView(key.buffer).setUint32(4 * i, state);
      new DataView(value.buffer).setUint32(4 * i, ~state);
    }
  }
}

Deno.test("a loop that decodes and puts never stores a position that was not computed", async () => {
  const layout = kvLayout({ layers: 1, kvHeads: 1, headDim: 4, dtype: "i8", chunkTokens: 64 });
  await using t = await openPrefixes(layout);
  // One set of tensors for all, so that what was not computed is another conversation's.
  const engine = new Decoder();
  const conversations = Array.from({ length: 64 }, (_, i) => prompt(100 + i, 1 + i * 1000));
  for (const tokens of conversations) {
    for (let turn = 0; turn < 3; turn++) {
      using hit = await t.prefixes.match(tokens);
      hit.scatterTo(engine.kv);
      engine.run(tokens, hit.tokens);
      for (let step = 0; step < 22; step++) {
        if (step > 0) engine.run(tokens, tokens.length - 1);
        tokens.push(step);
      }
      t.prefixes.put(tokens, engine.kv);
    }
  }
  for (const tokens of conversations) {
    const [restored, expected] = [new Decoder(), new Decoder()];
    using hit = await t.prefixes.match([...tokens, 5]);
    assertEquals(hit.tokens, Math.floor((tokens.length - 1) / 64) * 64);
    hit.scatterTo(restored.kv);
    expected.run(tokens.slice(0, hit.tokens), 0);
    assertEquals(restored.kv, expected.kv, `${tokens.length} tokens`);
  }
});

deviceTest("a hit leaves exactly the last token to run", async (device) => {
  await using t = await openPrefixes(LAYOUT, device);
  using stored = new EngineTensors(device, LAYOUT, 16).fill(1);
  const tokens = prompt(16);
  t.prefixes.put(tokens, stored.kv, { computedTokens: 16 });
  const lengths: Record<number, number> = { 17: 16, 16: 15, 15: 12, 13: 12, 12: 11, 4: 3, 3: 0 };
  for (const [length, expected] of Object.entries({ ...lengths, 1: 0, 0: 0 })) {
    const asked = [...tokens, 5].slice(0, Number(length));
    // Room for what is found, and for nothing else.
    using restored = new EngineTensors(device, LAYOUT, Math.max(1, expected)).fill(2);
    using hit = await t.prefixes.match(asked);
    assertEquals([hit.tokens, hit.l1Tokens], [expected, expected], `of ${length} tokens`);
    assertEquals(hit.ranges().length, Math.ceil(expected / 4));
    assert(hit.ranges().every(({ byteLength }) => byteLength === LAYOUT.byteLength));
    assertEquals(await hit.scatterTo(restored.kv), true);
    const bytes = expected * LAYOUT.tokenBytes;
    for (const [i, actual] of (await restored.read()).entries()) {
      const before = stored.expected(1)[i] as Uint8Array;
      assertSameBytes(actual.subarray(0, bytes), before.subarray(0, bytes), `tensor ${i}`);
    }
  }
});

Deno.test("a hit that ends inside a chunk does not change the rest of the tensors", async () => {
  await using t = await openPrefixes();
  const { device } = t.cache;
  using stored = new EngineTensors(device, LAYOUT, 8).fill(1);
  using restored = new EngineTensors(device, LAYOUT, 12).fill(2);
  t.prefixes.put(prompt(8), stored.kv, { computedTokens: 8 });
  using hit = await t.prefixes.match(prompt(8));
  hit.scatterTo(restored.kv);
  for (const [i, actual] of (await restored.read()).entries()) {
    const expected = restored.expected(2)[i] as Uint8Array;
    expected.set((stored.expected(1)[i] as Uint8Array).subarray(0, 7 * LAYOUT.tokenBytes));
    assertSameBytes(actual, expected, `tensor ${i}`);
  }
  using short = new EngineTensors(device, LAYOUT, 6);
  assertThrows(() => hit.scatterTo(short.kv), RangeError, "must have 112 bytes for 7 tokens");
});

Deno.test("chunks of one token: that of the last one is neither loaded nor stored", async () => {
  const layout = kvLayout({ ...LAYOUT, chunkTokens: 1 });
  await using t = await openPrefixes(layout);
  using tensors = new EngineTensors(t.cache.device, layout, 3).fill(1);
  const tokens = prompt(3);
  assertEquals(t.prefixes.put(tokens, tensors.kv).storedTokens, 2);
  assertEquals(t.prefixes.put(tokens, tensors.kv, { computedTokens: 3 }).storedTokens, 1);
  using hit = await t.prefixes.match(tokens);
  assertEquals([hit.tokens, hit.ranges().length], [2, 2]);
  using nothing = await t.prefixes.match([1]);
  assertEquals([nothing.tokens, nothing.ranges().length], [0, 0]);
});

Deno.test("put() assumes all tokens but the last are computed, or computedTokens", async () => {
  await using t = await openPrefixes();
  using tensors = new EngineTensors(t.cache.device, LAYOUT, 8).fill(1);
  const put = (length: number, computedTokens?: number) => {
    const options = computedTokens === undefined ? {} : { computedTokens };
    return Object.values(t.prefixes.put(prompt(length), tensors.kv, options));
  };
  // Stored, resident and skipped: a chunk that is withheld is none of them.
  assertEquals(put(0), [0, 0, 0]);
  assertEquals(put(4), [0, 0, 0]);
  assertEquals(put(8, 3), [0, 0, 0]);
  assertEquals(put(8, 4), [4, 0, 0]);
  assertEquals(put(8), [0, 4, 0]);
  assertEquals(put(8, 8), [4, 4, 0]);
  assertEquals(put(9, 8), [0, 8, 0]);
  assertEquals(put(8, 0), [0, 0, 0]);
  for (const computedTokens of [-1, 9, 1.5, NaN, Infinity]) {
    assertThrows(() => put(8, computedTokens), RangeError, "computedTokens must be");
  }
  assertEquals(await t.prefixes.warm(prompt(8)), 8, "warm() brings whole chunks");
  assertEquals(t.prefixes.keys(prompt(8)).length, 2);
});

Deno.test("tensors need space only for the computed tokens of whole chunks", async () => {
  await using t = await openPrefixes();
  using tensors = new EngineTensors(t.cache.device, LAYOUT, 4).fill(1);
  assertEquals(t.prefixes.put(prompt(8), tensors.kv).storedTokens, 4);
  const computedTokens = 8;
  assertThrows(() => t.prefixes.put(prompt(8), tensors.kv, { computedTokens }), RangeError);
});

Deno.test("groups with a window leave the last token to run too", async () => {
  const windowed = kvLayout({ ...LAYOUT, layers: 3 });
  const groups = [{ layout: LAYOUT }, { layout: windowed, windowTokens: 6 }];
  await using t = await openPrefixes(groups);
  const { device } = t.cache;
  using full = new EngineTensors(device, LAYOUT, 16).fill(1);
  using recent = new EngineTensors(device, windowed, 16).fill(2);
  t.prefixes.put(prompt(16), [full.kv, recent.kv], { computedTokens: 16 });
  using hit = await t.prefixes.match(prompt(16));
  assertEquals([hit.tokens, hit.l1Tokens], [15, 15]);
  assertEquals([hit.ranges(0).length, hit.ranges(1).length], [4, 2]);
  using fullAgain = new EngineTensors(device, LAYOUT, 15).fill(3);
  // Blocks that the window has left are gone, as is the one that only the last token needs.
  using windowAgain = new EngineTensors(device, windowed, 15).fill(4);
  const blocks = { layers: windowAgain.kv, blockTokens: 5, blockTable: [-1, 1, 2] };
  hit.scatterTo([fullAgain.kv, blocks]);
  for (const [i, actual] of (await fullAgain.read()).entries()) {
    assertSameBytes(actual, (full.expected(1)[i] as Uint8Array).subarray(0, actual.byteLength));
  }
  for (const [i, actual] of (await windowAgain.read()).entries()) {
    const expected = windowAgain.expected(4)[i] as Uint8Array;
    const start = 8 * windowed.tokenBytes;
    const bytes = (recent.expected(2)[i] as Uint8Array).subarray(start, actual.byteLength);
    expected.set(bytes, start);
    assertSameBytes(actual, expected);
  }
});

/** Where the bytes of a head of a token are, said as plainly as possible. */
function vectorOf(layout: KvLayout, kv: Blocks, token: number, head: number): [number, number] {
  const { kvHeads, tokenBytes, order } = layout;
  const block = kv.blockTable[Math.floor(token / kv.blockTokens)] as number;
  const place = token % kv.blockTokens;
  const vector = order === "NHD"
    ? (block * kv.blockTokens + place) * kvHeads + head
    : (block * kvHeads + head) * kv.blockTokens + place;
  const bytes = tokenBytes / kvHeads;
  return [vector * bytes, (vector + 1) * bytes];
}

interface Blocks {
  readonly blockTokens: number;
  readonly blockTable: readonly number[];
}

/** The engine's K and V. */
const SOURCES = [1, 2].map((seed) =>
  new Uint8Array(64 * 1024).map((_, i) => Math.imul(i + seed, 0x9e3779b1) >>> 24)
) as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];

const anyCase = fc.record({
  kvHeads: fc.integer({ min: 1, max: 3 }),
  headDim: fc.integer({ min: 1, max: 5 }),
  dtype: fc.constantFrom("f16" as const, "i8" as const, "f32" as const),
  chunkTokens: fc.constantFrom(2, 4, 6, 8, 12),
  order: fc.constantFrom("NHD" as const, "HND" as const),
  chunks: fc.integer({ min: 1, max: 3 }),
  blockTokens: fc.integer({ min: 1, max: 40 }),
  isPlain: fc.boolean(),
});

Deno.test("every shape restores all tokens but the last, and only words of what has room", async () => {
  const property = fc.asyncProperty(anyCase, async ({ chunks, isPlain, ...shape }) => {
    const rowBytes = shape.headDim * { f16: 2, i8: 1, f32: 4 }[shape.dtype] *
      (shape.order === "NHD" ? shape.kvHeads : 1);
    fc.pre(shape.chunkTokens * rowBytes % 4 === 0);
    const { blockTokens: anyBlockTokens, ...kvShape } = shape;
    const layout = kvLayout({ layers: 1, ...kvShape });
    const tokens = prompt(chunks * layout.chunkTokens);
    const found = tokens.length - 1;
    // A block is a multiple of 4 bytes.
    const blockTokens = layout.order === "NHD" && isPlain
      ? 4 * tokens.length
      : anyBlockTokens * rowBytes % 4 === 0
      ? anyBlockTokens
      : anyBlockTokens * 4;
    const count = Math.ceil(found / blockTokens);
    const blockTable = [...Array(count).keys()].reverse();
    const blocks = { blockTokens, blockTable };
    const room = layout.order === "NHD" && isPlain
      ? Math.ceil(found * layout.tokenBytes / 4) * 4
      : count * blockTokens * layout.tokenBytes;
    const kvOf = (bytes: number): [Uint8Array<ArrayBuffer>[], SequenceKv] => {
      const [key, value] = [new Uint8Array(bytes), new Uint8Array(bytes)];
      const layers = [{ key, value }];
      const plain = layout.order === "NHD" && isPlain;
      return [[key, value], plain ? layers : { layers, ...blocks }];
    };

    await using t = await openPrefixes(layout);
    const source = { layers: [{ key: SOURCES[0], value: SOURCES[1] }] };
    const sourceBlocks = { blockTokens: 4 * tokens.length, blockTable: [0] };
    t.prefixes.put(tokens, { ...source, ...sourceBlocks }, { computedTokens: tokens.length });
    const [tensors, kv] = kvOf(room);
    for (const tensor of tensors) tensor.fill(0xee);
    using hit = await t.prefixes.match(tokens);
    assertEquals(hit.tokens, found);
    hit.scatterTo(kv);
    for (const [i, tensor] of tensors.entries()) {
      const expected = new Uint8Array(room).fill(0xee);
      const isWritten = new Uint8Array(room);
      for (let token = 0; token < found; token++) {
        for (let head = 0; head < layout.kvHeads; head++) {
          const [start, end] = vectorOf(layout, blocks, token, head);
          expected.set(
            (SOURCES[i] as Uint8Array).subarray(...vectorOf(layout, sourceBlocks, token, head)),
            start,
          );
          isWritten.fill(1, start, end);
        }
      }
      for (let at = 0; at < room; at++) {
        if (isWritten[at] === 1) assertEquals(tensor[at], expected[at], `byte ${at}`);
        // Beyond that, the rest of a word at most.
        else if (isWritten[at - at % 4] !== 1) assertEquals(tensor[at], 0xee, `byte ${at}`);
      }
    }
    const [, short] = kvOf(room - 4);
    if (found > 0) assertThrows(() => hit.scatterTo(short), RangeError, "must have");
  });
  await fc.assert(property, runs(150));
});
