import { assertEquals, assertThrows } from "@std/assert";
import { type KvDtype, kvLayout, type KvOrder, type KvShape } from "../../../src/keys/kv_layout.ts";

const SHAPE: KvShape = { layers: 28, kvHeads: 8, headDim: 128, dtype: "f16" };

Deno.test("kvLayout() counts K and V of all layers of one chunk", () => {
  const { fingerprint: _, ...layout } = kvLayout(SHAPE);
  assertEquals(layout, {
    layers: 28,
    kvHeads: 8,
    headDim: 128,
    dtype: "f16",
    chunkTokens: 256,
    order: "NHD",
    tokenBytes: 2048,
    tensorBytes: 524288,
    byteLength: 29360128,
  });
});

const DTYPE_BYTES: Record<KvDtype, number> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  f8e4m3: 1,
  f8e5m2: 1,
  i8: 1,
};

for (const [dtype, bytes] of Object.entries(DTYPE_BYTES)) {
  Deno.test(`kvLayout() takes ${bytes} bytes for an element of ${dtype}`, () => {
    const shape = { layers: 3, kvHeads: 5, headDim: 7, dtype: dtype as KvDtype, chunkTokens: 16 };
    assertEquals(kvLayout(shape).byteLength, 3 * 2 * 5 * 7 * 16 * bytes);
  });
}

Deno.test("kvLayout().fingerprint is the same in every release", () => {
  // Written by a program in another language, from the description of the format alone.
  const shape: KvShape = { layers: 2, kvHeads: 8, headDim: 64, dtype: "f16", chunkTokens: 4 };
  assertEquals(kvLayout(shape).fingerprint.toHex(), "cc2aec108f3df25a");
  assertEquals(kvLayout({ ...shape, order: "HND" }).fingerprint.toHex(), "d72d129ca80fa5d8");
  assertEquals(kvLayout({ ...SHAPE, chunkTokens: 256, order: "NHD" }), kvLayout(SHAPE));
});

Deno.test("kvLayout().fingerprint differs where any field differs", () => {
  // Several have the same size: only the meaning of the bytes differs.
  const shapes: KvShape[] = [
    SHAPE,
    { ...SHAPE, layers: 56 },
    { ...SHAPE, kvHeads: 16 },
    { ...SHAPE, headDim: 256 },
    { ...SHAPE, kvHeads: 128, headDim: 8 },
    { ...SHAPE, dtype: "bf16" },
    { ...SHAPE, dtype: "f32" },
    { ...SHAPE, dtype: "i8" },
    { ...SHAPE, dtype: "f8e4m3" },
    { ...SHAPE, dtype: "f8e5m2" },
    { ...SHAPE, chunkTokens: 512 },
    { ...SHAPE, order: "HND" },
  ];
  const fingerprints = shapes.map((shape) => kvLayout(shape).fingerprint.toHex());
  assertEquals(new Set(fingerprints).size, shapes.length);
  assertEquals(new Set(fingerprints.map(({ length }) => length)), new Set([16]));
});

for (const field of ["layers", "kvHeads", "headDim", "chunkTokens"] as const) {
  Deno.test(`kvLayout() refuses ${field} that is not a positive integer`, () => {
    for (const value of [0, -1, 1.5, NaN, Infinity, 2 ** 53]) {
      assertThrows(() => kvLayout({ ...SHAPE, [field]: value }), RangeError, field);
    }
  });
}

Deno.test("kvLayout() describes a wrong key or type", () => {
  const make = (shape: object) => () => kvLayout({ ...SHAPE, ...shape } as KvShape);
  assertThrows(
    make({ layers: "28" }),
    TypeError,
    "layers must be an integer of at least 1: received a string",
  );
  assertThrows(make({ headDim: undefined }), TypeError, "headDim");
  assertThrows(
    make({ numKvHeads: 8 }),
    TypeError,
    'must not have the key "numKvHeads": did you mean kvHeads?',
  );
  assertThrows(make({ chunkSize: 8 }), TypeError, "expected layers, kvHeads, headDim");
  assertThrows(make({ dtype: 16 }), RangeError, "received 16");
  assertThrows(() => kvLayout(null as unknown as KvShape), TypeError, "received null");
  make(kvLayout(SHAPE))();
});

Deno.test("kvLayout() rejects an unknown dtype", () => {
  for (const dtype of ["f64", "", "toString"]) {
    assertThrows(() => kvLayout({ ...SHAPE, dtype: dtype as KvDtype }), RangeError, "dtype");
  }
});

Deno.test("kvLayout() rejects an unknown order", () => {
  for (const order of ["DHN", "", "nhd"]) {
    const shape = { ...SHAPE, order: order as KvOrder };
    assertThrows(() => kvLayout(shape), RangeError, `NHD, HND: received ${order}`);
  }
});

Deno.test("kvLayout() rejects tensors that GPU copies do not support", () => {
  const shape: KvShape = { layers: 4, kvHeads: 1, headDim: 1, dtype: "i8", chunkTokens: 6 };
  assertThrows(() => kvLayout(shape), RangeError, "multiple of 4");
  assertEquals(kvLayout({ ...shape, chunkTokens: 8 }).tensorBytes, 8);
  // Together they could be moved, but each head's lie somewhere else.
  assertEquals(kvLayout({ ...shape, kvHeads: 2 }).tensorBytes, 12);
  assertThrows(
    () => kvLayout({ ...shape, kvHeads: 2, order: "HND" }),
    RangeError,
    "chunkTokens * headDim elements must fill a multiple of 4 bytes: received 6",
  );
});

Deno.test("kvLayout() rejects objects with a size above 2^53 - 1", () => {
  const shape: KvShape = { layers: 2 ** 20, kvHeads: 2 ** 12, headDim: 2 ** 12, dtype: "f32" };
  assertThrows(() => kvLayout(shape), RangeError, "2^53");
});
