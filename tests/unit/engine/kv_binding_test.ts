import { assertEquals, assertThrows } from "@std/assert";
import {
  checkKvTensors,
  gatherOperations,
  scatterOperations,
} from "../../../src/engine/kv_binding.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { deviceTest, readRange } from "../../support/devices.ts";
import { createBuffer, EngineTensors } from "../../support/kv_tensors.ts";

const LAYOUT = kvLayout({ layers: 3, kvHeads: 2, headDim: 4, dtype: "f16", chunkTokens: 4 });

deviceTest(
  "gatherOperations() puts the layers' K and V of a chunk one after another",
  async (device) => {
    using tensors = new EngineTensors(device, LAYOUT, 12).fill(1);
    // The object lies somewhere in a slab, between others.
    const buffer = createBuffer(device, 256 + LAYOUT.byteLength + 256);
    const object = { buffer, byteOffset: 256, byteLength: LAYOUT.byteLength };

    device.copy(gatherOperations(LAYOUT, tensors.kv, 1, object));

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
  "scatterOperations() puts a chunk back where gatherOperations() took it",
  async (device) => {
    using source = new EngineTensors(device, LAYOUT, 12).fill(1);
    using target = new EngineTensors(device, LAYOUT, 12).fill(2);
    const buffer = createBuffer(device, LAYOUT.byteLength);
    const object = { buffer, byteOffset: 0, byteLength: LAYOUT.byteLength };

    for (const chunk of [0, 2]) {
      device.copy(gatherOperations(LAYOUT, source.kv, chunk, object));
      device.copy(scatterOperations(LAYOUT, target.kv, chunk, object));
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

Deno.test("checkKvTensors() takes tensors that are large enough", () => {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 9);
  checkKvTensors(LAYOUT, tensors.kv, 0);
  checkKvTensors(LAYOUT, tensors.kv, 2);
});

Deno.test("checkKvTensors() rejects tensors that do not fit the layout", () => {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 8);
  assertThrows(() => checkKvTensors(LAYOUT, tensors.kv, 3), RangeError, "12 tokens");
  assertThrows(() => checkKvTensors(LAYOUT, tensors.kv.slice(1), 1), RangeError, "3 layers");
  assertThrows(() => checkKvTensors(LAYOUT, [], 0), RangeError, "3 layers");
  const short = { key: new Uint8Array(128), value: new Uint8Array(124) };
  const kv = [...tensors.kv.slice(0, 2), short];
  assertThrows(() => checkKvTensors(LAYOUT, kv, 2), RangeError, "layer 2");
});
