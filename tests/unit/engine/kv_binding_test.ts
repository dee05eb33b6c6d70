import { assertEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import {
  checkSequenceKv,
  copyOperations,
  type KvBlocks,
  type KvLayer,
} from "../../../src/engine/kv_binding.ts";
import { type KvLayout, kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { MemoryRange } from "../../../src/memory/memory_device.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { deviceTest, readRange } from "../../support/devices.ts";
import { createBuffer, EngineTensors } from "../../support/kv_tensors.ts";
import { runs } from "../../support/runs.ts";

const LAYOUT = kvLayout({ layers: 3, kvHeads: 2, headDim: 4, dtype: "f16", chunkTokens: 4 });

deviceTest(
  "copyOperations() gathers: it concatenates the layers' K and V of a chunk",
  async (device) => {
    using tensors = new EngineTensors(device, LAYOUT, 12).fill(1);
    // The object lies somewhere in a slab, between others.
    const buffer = createBuffer(device, 256 + LAYOUT.byteLength + 256);
    const object = { buffer, byteOffset: 256, byteLength: LAYOUT.byteLength };

    device.copy(copyOperations("gather", LAYOUT, tensors.kv, 1, object));

    const { tensorBytes } = LAYOUT;
    const expected = tensors.expected(1).map((bytes) =>
      bytes.subarray(tensorBytes, 2 * tensorBytes)
    );
    const whole = await readRange(device, { buffer, byteOffset: 0, byteLength: 256 + 384 + 256 });
    assertSameBytes(
      whole.subarray(256, 256 + 384),
      Uint8Array.from(expected.flatMap((b) => [...b])),
    );
    assertEquals(whole.subarray(0, 256), new Uint8Array(256));
    assertEquals(whole.subarray(256 + 384), new Uint8Array(256));
    if (!(buffer instanceof Uint8Array)) buffer.destroy();
  },
);

deviceTest(
  "copyOperations() scatters what it gathered",
  async (device) => {
    using source = new EngineTensors(device, LAYOUT, 12).fill(1);
    using target = new EngineTensors(device, LAYOUT, 12).fill(2);
    const buffer = createBuffer(device, LAYOUT.byteLength);
    const object = { buffer, byteOffset: 0, byteLength: LAYOUT.byteLength };

    for (const chunk of [0, 2]) {
      device.copy(copyOperations("gather", LAYOUT, source.kv, chunk, object));
      device.copy(copyOperations("scatter", LAYOUT, target.kv, chunk, object));
    }

    const { tensorBytes } = LAYOUT;
    const [ones, twos] = [source.expected(1), source.expected(2)];
    for (const [i, actual] of (await target.read()).entries()) {
      const expected = (ones[i] as Uint8Array).slice();
      // Chunk 1 was not copied.
      expected.set((twos[i] as Uint8Array).subarray(tensorBytes, 2 * tensorBytes), tensorBytes);
      assertSameBytes(actual, expected, `tensor ${i}`);
    }
    if (!(buffer instanceof Uint8Array)) buffer.destroy();
  },
);

Deno.test("checkSequenceKv() accepts tensors that are large enough", () => {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 9);
  checkSequenceKv(LAYOUT, tensors.kv, { first: 0, end: 0 });
  checkSequenceKv(LAYOUT, tensors.kv, { first: 0, end: 8 });
  checkSequenceKv(LAYOUT, tensors.kv, { first: 0, end: 9 });
});

Deno.test("checkSequenceKv() rejects tensors that do not fit the layout", () => {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 8);
  assertThrows(
    () => checkSequenceKv(LAYOUT, tensors.kv, { first: 0, end: 12 }),
    RangeError,
    "12 tokens",
  );
  assertThrows(
    () => checkSequenceKv(LAYOUT, tensors.kv.slice(1), { first: 0, end: 4 }),
    RangeError,
    "3 layers",
  );
  assertThrows(() => checkSequenceKv(LAYOUT, [], { first: 0, end: 0 }), RangeError, "3 layers");
  const short = { key: new Uint8Array(128), value: new Uint8Array(124) };
  const kv = [...tensors.kv.slice(0, 2), short];
  assertThrows(() => checkSequenceKv(LAYOUT, kv, { first: 0, end: 8 }), RangeError, "layer 2");
});

// Blocks

/** Where K (or V) of a head of a token starts in its tensor, said as plainly as possible. */
function placeOf(layout: KvLayout, kv: KvBlocks, token: number, head: number): number {
  const { order, kvHeads, tokenBytes } = layout;
  const block = kv.blockTable?.[Math.floor(token / kv.blockTokens)] ?? 0;
  const place = token % kv.blockTokens;
  const vectors = order === "NHD"
    ? (block * kv.blockTokens + place) * kvHeads + head
    : (block * kvHeads + head) * kv.blockTokens + place;
  const gap = (kv.blockStrideBytes ?? kv.blockTokens * tokenBytes) - kv.blockTokens * tokenBytes;
  return block * gap + vectors * tokenBytes / kvHeads;
}

/** Bytes of a tensor, which may be a range of its buffer. */
function bytesAt(tensor: KvLayer["key"], at: number, length: number): Uint8Array {
  if (tensor instanceof Uint8Array) return tensor.subarray(at, at + length);
  const { buffer, byteOffset } = tensor as MemoryRange;
  return (buffer as Uint8Array).subarray(byteOffset + at, byteOffset + at + length);
}

/** The object of a chunk, element vector by element vector. */
function objectOf(layout: KvLayout, kv: KvBlocks, chunk: number): Uint8Array {
  const { order, kvHeads, chunkTokens, tokenBytes } = layout;
  const [tokens, heads] = [[...Array(chunkTokens).keys()], [...Array(kvHeads).keys()]];
  const pairs = order === "NHD"
    ? tokens.flatMap((token) => heads.map((head) => [token, head] as const))
    : heads.flatMap((head) => tokens.map((token) => [token, head] as const));
  const vectorBytes = tokenBytes / kvHeads;
  return Uint8Array.from(
    kv.layers.flatMap(({ key, value }) => [key, value]).flatMap((tensor) =>
      pairs.flatMap(([token, head]) => {
        const at = placeOf(layout, kv, chunk * chunkTokens + token, head);
        return [...bytesAt(tensor, at, vectorBytes)];
      })
    ),
  );
}

const anyBlocks = fc.record({
  layers: fc.integer({ min: 1, max: 2 }),
  kvHeads: fc.integer({ min: 1, max: 3 }),
  chunkTokens: fc.integer({ min: 1, max: 9 }),
  order: fc.constantFrom("NHD" as const, "HND" as const),
  blockTokens: fc.integer({ min: 1, max: 24 }),
  chunks: fc.integer({ min: 1, max: 3 }),
  pool: fc.shuffledSubarray([...Array(32).keys()], { minLength: 27 }),
});

Deno.test("chunks are gathered from and scattered to blocks in any order", () => {
  const device = new HostDevice();
  fc.assert(
    fc.property(anyBlocks, ({ blockTokens, chunks, pool, ...shape }) => {
      const layout = kvLayout({ ...shape, headDim: 2, dtype: "f16" });
      const count = Math.ceil(chunks * layout.chunkTokens / blockTokens);
      using source = new EngineTensors(device, layout, 32 * blockTokens).fill(1);
      using target = new EngineTensors(device, layout, 32 * blockTokens).fill(2);
      const from = { layers: source.kv, blockTokens, blockTable: pool.slice(0, count) };
      const to = { layers: target.kv, blockTokens, blockTable: pool.toReversed().slice(0, count) };
      checkSequenceKv(layout, from, { first: 0, end: chunks * layout.chunkTokens });
      const chunk = chunks - 1;
      const buffer = new Uint8Array(layout.byteLength);
      const object = { buffer, byteOffset: 0, byteLength: layout.byteLength };

      device.copy(copyOperations("gather", layout, from, chunk, object));
      assertSameBytes(buffer, objectOf(layout, from, chunk), "object");

      device.copy(copyOperations("scatter", layout, to, chunk, object));
      assertSameBytes(objectOf(layout, to, chunk), buffer, "target");
      const untouched = target.expected(2);
      for (const [i, tensor] of to.layers.flatMap(({ key, value }) => [key, value]).entries()) {
        const expected = untouched[i] as Uint8Array;
        const vectorBytes = layout.tokenBytes / layout.kvHeads;
        for (let token = 0; token < layout.chunkTokens; token++) {
          for (let head = 0; head < layout.kvHeads; head++) {
            const at = placeOf(layout, to, chunk * layout.chunkTokens + token, head);
            const bytes = (tensor as Uint8Array).subarray(at, at + vectorBytes);
            expected.set(bytes, at);
          }
        }
        assertSameBytes(tensor as Uint8Array, expected, "nothing else of the target");
      }
    }),
    runs(300),
  );
});

deviceTest("a tensor whose heads come first is one block", async (device) => {
  const layout = kvLayout({ ...LAYOUT, order: "HND" });
  using source = new EngineTensors(device, layout, 12).fill(1);
  using target = new EngineTensors(device, layout, 20).fill(2);
  const buffer = createBuffer(device, layout.byteLength);
  const object = { buffer, byteOffset: 0, byteLength: layout.byteLength };
  const from = { layers: source.kv, blockTokens: 12 };
  const to = { layers: target.kv, blockTokens: 20 };

  device.copy(copyOperations("gather", layout, from, 2, object));
  device.copy(copyOperations("scatter", layout, to, 2, object));

  const [before, after] = [source.expected(1), await target.read()];
  for (const [i, tensor] of after.entries()) {
    for (const head of [0, 1]) {
      assertSameBytes(
        tensor.subarray((head * 20 + 8) * 8, (head * 20 + 12) * 8),
        (before[i] as Uint8Array).subarray((head * 12 + 8) * 8, (head * 12 + 12) * 8),
        `tensor ${i}, head ${head}`,
      );
    }
  }
  if (!(buffer instanceof Uint8Array)) buffer.destroy();
});

Deno.test("tensors whose heads come first require blockTokens", () => {
  const layout = kvLayout({ ...LAYOUT, order: "HND" });
  using tensors = new EngineTensors(new HostDevice(), layout, 12);
  assertThrows(
    () => checkSequenceKv(layout, tensors.kv, { first: 0, end: 4 }),
    RangeError,
    "blockTokens",
  );
});

Deno.test("checkSequenceKv() rejects blocks that do not fit", () => {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 12);
  const layers = tensors.kv;
  const check = (blockTokens: number, blockTable: number[], first = 0) => () =>
    checkSequenceKv(LAYOUT, { layers, blockTokens, blockTable }, { first, end: 8 });
  check(3, [3, 1, 0])();
  assertThrows(check(3, [3, 1]), RangeError, "3 blocks for 8 tokens: received 2");
  assertThrows(check(3, [4, 1, 0]), RangeError, "layer 0 must have 240 bytes");
  assertThrows(check(3, [0, -1, 1]), RangeError, "received -1 at index 1");
  assertThrows(check(3, [0, 0.5, 1]), RangeError, "received 0.5 at index 1");
  for (const tokens of [0, 1.5, -1, NaN]) {
    assertThrows(check(tokens, [0]), RangeError, `blockTokens must be an integer of at least 1`);
  }
  check(4, [-1, 2], 4)();
  const bytes = kvLayout({ layers: 3, kvHeads: 2, headDim: 1, dtype: "i8", chunkTokens: 4 });
  assertThrows(
    () =>
      checkSequenceKv(
        bytes,
        { layers, blockTokens: 3, blockTable: [0, 1, 2] },
        { first: 0, end: 8 },
      ),
    RangeError,
    "blockTokens must fill a multiple of 4 bytes: received 3 of 2 bytes",
  );
});

Deno.test("K and V may share a buffer, in sequence or page by page", () => {
  const device = new HostDevice();
  const chunks = 2;
  for (const order of ["NHD", "HND"] as const) {
    const layout = kvLayout({
      layers: 2,
      kvHeads: 2,
      headDim: 4,
      dtype: "f16",
      chunkTokens: 6,
      order,
    });
    const span = { first: 0, end: chunks * layout.chunkTokens };
    const pageBytes = 4 * layout.tokenBytes;
    // Eight pages a layer, and an arena for all layers.
    const arena = new Uint8Array(2 * 2 * 8 * pageBytes).map((_, i) => i * 7 + (i >> 8));
    const halves = [0, 1].map((layer): KvLayer => {
      const rangeAt = (i: number) => ({
        buffer: arena,
        byteOffset: (layer * 2 + i) * 8 * pageBytes,
        byteLength: 8 * pageBytes,
      });
      return { key: rangeAt(0), value: rangeAt(1) };
    });
    const pages = [0, 1].map((layer): KvLayer => {
      const rangeAt = (i: number) => ({
        buffer: arena,
        byteOffset: (layer * 2 * 8 + i) * pageBytes,
        byteLength: (2 * 8 - 1) * pageBytes,
      });
      return { key: rangeAt(0), value: rangeAt(1) };
    });
    const blockTable = [5, 0, 7];
    for (
      const kv of [
        { layers: halves, blockTokens: 4, blockTable },
        { layers: pages, blockTokens: 4, blockTable, blockStrideBytes: 2 * pageBytes },
      ]
    ) {
      checkSequenceKv(layout, kv, span);
      const buffer = new Uint8Array(layout.byteLength);
      const object = { buffer, byteOffset: 0, byteLength: layout.byteLength };
      device.copy(copyOperations("gather", layout, kv, 1, object));
      assertSameBytes(buffer, objectOf(layout, kv, 1), order);
      const before = arena.slice();
      device.copy(copyOperations("scatter", layout, kv, 1, object));
      assertSameBytes(arena, before, "back where they came from");
      const short = { ...kv, blockTable: [5, 0, 8] };
      assertThrows(() => checkSequenceKv(layout, short, span), RangeError, "must have");
    }
    for (const blockStrideBytes of [pageBytes - 4, pageBytes + 2, NaN]) {
      const kv = { layers: pages, blockTokens: 4, blockTable, blockStrideBytes };
      assertThrows(() => checkSequenceKv(layout, kv, span), RangeError, "blockStrideBytes");
    }
  }
});
