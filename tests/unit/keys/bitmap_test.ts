import { assertEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { Bitmap } from "../../../src/keys/bitmap.ts";
import { runs } from "../../support/runs.ts";

/** Lengths around the edges of 32-bit words, and any other. */
const lengths = fc.oneof(fc.constantFrom(0, 1, 31, 32, 33, 63, 64, 65), fc.nat(200));
const bits = lengths.chain((length) =>
  fc.array(fc.boolean(), { minLength: length, maxLength: length })
);
/** Indices in and around a bitmap, and numbers that are no index. */
const indices = fc.oneof(fc.integer({ min: -40, max: 240 }), fc.constantFrom(0.5, NaN, 2 ** 32));

function bitmapOf(model: readonly boolean[]): Bitmap {
  return Bitmap.from(model, (bit) => bit);
}

/** Every way to read a bitmap says what the model says: padding bits show in none of them. */
function assertSame(bitmap: Bitmap, model: readonly boolean[]): void {
  const set = model.flatMap((bit, index) => bit ? [index] : []);
  const firstSet = model.indexOf(true);
  const firstClear = model.indexOf(false);
  assertEquals(bitmap.length, model.length);
  assertEquals(bitmap.toString(), model.map((bit) => bit ? "1" : "0").join(""));
  assertEquals(bitmap.indices(), set);
  assertEquals(bitmap.indexSet(), new Set(set));
  assertEquals(bitmap.popcount(), set.length);
  assertEquals(bitmap.countLeadingZeros(), firstSet < 0 ? model.length : firstSet);
  assertEquals(bitmap.countLeadingOnes(), firstClear < 0 ? model.length : firstClear);
  for (let index = -40; index < model.length + 70; index++) {
    assertEquals(bitmap.test(index), model[index] ?? false, `bit ${index}`);
  }
}

Deno.test("Bitmap starts with a prefix of set bits, clamped to its length", () => {
  fc.assert(
    fc.property(lengths, fc.nat(300), (length, prefixBits) => {
      const model = Array.from({ length }, (_, index) => index < prefixBits);
      assertSame(new Bitmap(length, prefixBits), model);
    }),
    runs(200),
  );
});

Deno.test("Bitmap.set() and clear() change one bit, or nothing out of range", () => {
  const steps = fc.array(fc.tuple(fc.constantFrom("set", "clear"), indices), {
    maxLength: 60,
    size: "max",
  });
  fc.assert(
    fc.property(bits, steps, (model, changes) => {
      const bitmap = bitmapOf(model);
      for (const [change, index] of changes) {
        if (index in model) model[index] = change === "set";
        bitmap[change as "set" | "clear"](index);
      }
      assertSame(bitmap, model);
    }),
    runs(200),
  );
});

Deno.test("Bitmap.of() and setAll() set the bits at the indices", () => {
  fc.assert(
    fc.property(lengths, fc.array(indices), (length, chosen) => {
      const model = Array.from({ length }, (_, index) => chosen.includes(index));
      assertSame(Bitmap.of(length, chosen), model);
      const bitmap = new Bitmap(length);
      bitmap.setAll(new Set(chosen));
      assertSame(bitmap, model);
    }),
    runs(200),
  );
});

Deno.test("Bitmap.from() sets the bits of the items that pass", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(9), { maxLength: 70 }), (items) => {
      assertSame(Bitmap.from(items, (item) => item < 5), items.map((item) => item < 5));
      assertSame(
        Bitmap.from(items, (_, index) => index % 3 === 0),
        items.map((_, i) => i % 3 === 0),
      );
    }),
    runs(100),
  );
});

Deno.test("Bitmap.and() and or() combine up to the shorter length", () => {
  fc.assert(
    fc.property(bits, bits, (a, b) => {
      const common = a.slice(0, b.length);
      const [left, right] = [bitmapOf(a), bitmapOf(b)];
      assertSame(left.and(right), common.map((bit, index) => bit && b[index] === true));
      assertSame(left.or(right), common.map((bit, index) => bit || b[index] === true));
      assertSame(left, a);
      assertSame(right, b);
    }),
    runs(300),
  );
});

Deno.test("Bitmap.invert() flips every bit and no padding", () => {
  fc.assert(
    fc.property(bits, (model) => {
      const bitmap = bitmapOf(model);
      assertSame(bitmap.invert(), model.map((bit) => !bit));
      assertSame(bitmap.invert().invert(), model);
      assertSame(bitmap, model);
    }),
    runs(200),
  );
});

Deno.test("Bitmap.gather() returns the items of set bits, and skips bits beyond them", () => {
  fc.assert(
    fc.property(bits, fc.nat(250), (model, itemCount) => {
      const items = Array.from({ length: itemCount }, (_, index) => `item ${index}`);
      const expected = items.filter((_, index) => model[index] === true);
      assertEquals(bitmapOf(model).gather(items), expected);
    }),
    runs(200),
  );
});

Deno.test("Bitmap.gather() keeps items that are undefined", () => {
  assertEquals(new Bitmap(2, 2).gather([undefined, 1]), [undefined, 1]);
});

for (const number of [-1, 0.5, NaN, Infinity]) {
  Deno.test(`Bitmap refuses ${number} as a length and as a number of prefix bits`, () => {
    assertThrows(() => new Bitmap(number), RangeError, "length");
    assertThrows(() => new Bitmap(8, number), RangeError, "prefixBits");
  });
}
