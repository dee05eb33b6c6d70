import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  bufferBytes,
  type CopyOperation,
  type DeviceBuffer,
  DeviceLostError,
  type MemoryDevice,
  type MemoryRange,
} from "../../../src/memory/memory_device.ts";
import { concatParts } from "../../../src/adapter/contract.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { deviceTest, readRange } from "../../support/devices.ts";
import { testBytes, testKey } from "../../support/objects.ts";
import { STAGING_BLOCK_BYTES } from "../../../src/memory/staging_pool.ts";

// The contract of every device: each test runs on each of them.

const MIB = 2 ** 20;

/** A slab that is destroyed at the end of its scope. */
function slabOf(
  device: MemoryDevice,
  byteLength: number,
): Disposable & { buffer: DeviceBuffer; whole: MemoryRange } {
  const slab = device.createSlab(byteLength);
  const { buffer } = slab;
  return {
    buffer,
    whole: { buffer, byteOffset: 0, byteLength },
    [Symbol.dispose]: () => device.destroySlab(slab),
  };
}

/** The bytes of object `n`. */
function bytesOf(n: number, byteLength: number): Uint8Array<ArrayBuffer> {
  return testBytes(testKey(n), byteLength);
}

/** A buffer that this device does not take. */
function foreignBuffer(device: MemoryDevice): DeviceBuffer {
  if (device.type === "webgpu") return new Uint8Array(1024);
  return { size: 1024 } as GPUBuffer;
}

deviceTest("a slab has its size, is valid and contains zeros", async (device) => {
  const slab = device.createSlab(4096);
  assertEquals(slab.byteLength, 4096);
  assertEquals(bufferBytes(slab.buffer), 4096);
  assertEquals(await slab.valid, true);
  const range = { buffer: slab.buffer, byteOffset: 0, byteLength: 4096 };
  assertSameBytes(await readRange(device, range), new Uint8Array(4096));
  device.destroySlab(slab);
});

const BLOCK = STAGING_BLOCK_BYTES;
for (const byteLength of [4, 1000, BLOCK - 4, BLOCK, BLOCK + 4, 9 * MIB, 17 * MIB + 12]) {
  deviceTest(`${byteLength} bytes round-trip through the device`, async (device) => {
    using slab = slabOf(device, byteLength);
    const bytes = bytesOf(1, byteLength);
    device.upload(slab.whole, [bytes]);
    assertSameBytes(await readRange(device, slab.whole), bytes);
  });
}

deviceTest(
  "upload() joins parts in order and changes no other byte",
  async (device) => {
    using slab = slabOf(device, 4096);
    const around = bytesOf(1, 4096);
    const inside = bytesOf(2, 1000);
    device.upload(slab.whole, [around]);
    const parts = [inside.subarray(0, 4), inside.subarray(4, 600), inside.subarray(600)];
    device.upload({ buffer: slab.buffer, byteOffset: 512, byteLength: 1000 }, parts);
    const expected = around.slice();
    expected.set(inside, 512);
    assertSameBytes(await readRange(device, slab.whole), expected);
  },
);

deviceTest("upload() does not use its parts after it returns", async (device) => {
  using slab = slabOf(device, 1024);
  const scratch = bytesOf(1, 512);
  device.upload({ ...slab.whole, byteLength: 512 }, [scratch]);
  scratch.set(bytesOf(2, 512));
  device.upload({ ...slab.whole, byteOffset: 512, byteLength: 512 }, [scratch]);
  scratch.fill(0);
  const read = await readRange(device, slab.whole);
  assertSameBytes(read.subarray(0, 512), bytesOf(1, 512), "first");
  assertSameBytes(read.subarray(512), bytesOf(2, 512), "second");
});

deviceTest("uploads and copies take effect in the order of the calls", async (device) => {
  using a = slabOf(device, 256);
  using b = slabOf(device, 256);
  using c = slabOf(device, 256);
  const copy = (source: DeviceBuffer, destination: DeviceBuffer): CopyOperation => ({
    source,
    sourceOffset: 0,
    destination,
    destinationOffset: 0,
    byteLength: 256,
  });
  device.upload(a.whole, [bytesOf(1, 256)]);
  device.copy([copy(a.buffer, b.buffer), copy(b.buffer, c.buffer)]);
  device.upload(a.whole, [bytesOf(2, 256)]);
  device.copy([copy(a.buffer, b.buffer)]);
  device.upload(a.whole, [bytesOf(3, 256)]);
  assertSameBytes(await readRange(device, a.whole), bytesOf(3, 256), "a");
  assertSameBytes(await readRange(device, b.whole), bytesOf(2, 256), "b");
  assertSameBytes(await readRange(device, c.whole), bytesOf(1, 256), "c");
});

deviceTest(
  "copy() copies ranges between offsets and changes no other byte",
  async (device) => {
    using source = slabOf(device, 2048);
    using destination = slabOf(device, 1024);
    const [from, to] = [bytesOf(1, 2048), bytesOf(2, 1024)];
    device.upload(source.whole, [from]);
    device.upload(destination.whole, [to]);
    const ranges = [[1024, 4, 300], [0, 512, 4], [2044, 1020, 4]] as const;
    device.copy(ranges.map(([sourceOffset, destinationOffset, byteLength]) => ({
      source: source.buffer,
      sourceOffset,
      destination: destination.buffer,
      destinationOffset,
      byteLength,
    })));
    for (const [sourceOffset, destinationOffset, byteLength] of ranges) {
      to.set(from.subarray(sourceOffset, sourceOffset + byteLength), destinationOffset);
    }
    assertSameBytes(await readRange(device, destination.whole), to);
    assertSameBytes(await readRange(device, source.whole), from);
  },
);

deviceTest("copy() and readBack() of nothing do nothing", async (device) => {
  device.copy([]);
  using readBack = await device.readBack([]);
  assertEquals(readBack.objects, []);
});

deviceTest(
  "readBack() returns many objects at once, each with space for its tail",
  async (device) => {
    const sizes = Array.from({ length: 200 }, (_, i) => 4 * (1 + i * 37 % 2000));
    using slab = slabOf(device, sizes.reduce((sum, size) => sum + Math.ceil(size / 256) * 256, 0));
    let byteOffset = 0;
    const requests = sizes.map((byteLength, i) => {
      const range = { buffer: slab.buffer, byteOffset, byteLength };
      device.upload(range, [bytesOf(i, byteLength)]);
      byteOffset += Math.ceil(byteLength / 256) * 256;
      return { range, tailBytes: i % 3 === 0 ? 0 : 64 + i };
    });
    using readBack = await device.readBack(requests);
    const objects = requests.map(({ range, tailBytes }, i) => {
      const parts = readBack.objects[i] ?? [];
      const total = parts.reduce((sum, part) => sum + part.byteLength, 0);
      assertEquals(total, range.byteLength + tailBytes, `object ${i}`);
      writeTail(parts, range.byteLength, i);
      return { parts, range, tailBytes };
    });
    for (const [i, { parts, range, tailBytes }] of objects.entries()) {
      const whole = concatParts(parts);
      assertSameBytes(
        whole.subarray(0, range.byteLength),
        bytesOf(i, range.byteLength),
        `object ${i}`,
      );
      assertSameBytes(
        whole.subarray(range.byteLength),
        new Uint8Array(tailBytes).fill(i),
        `tail ${i}`,
      );
    }
    assertEquals(readBack.objects.length, requests.length);
  },
);

/** Fills what stands behind the first `byteLength` bytes. */
function writeTail(parts: readonly Uint8Array[], byteLength: number, value: number): void {
  let offset = 0;
  for (const part of parts) {
    part.subarray(Math.min(part.byteLength, Math.max(0, byteLength - offset))).fill(value);
    offset += part.byteLength;
  }
}

deviceTest(
  "readBack() has space for the tails of objects larger than its buffers",
  async (device) => {
    const sizes = [STAGING_BLOCK_BYTES, 9 * MIB, 256];
    using slab = slabOf(device, sizes.reduce((sum, size) => sum + size, 0));
    let byteOffset = 0;
    const requests = sizes.map((byteLength, i) => {
      const range = { buffer: slab.buffer, byteOffset, byteLength };
      device.upload(range, [bytesOf(i, byteLength)]);
      byteOffset += byteLength;
      return { range, tailBytes: 64 };
    });
    using readBack = await device.readBack(requests);
    for (const [i, size] of sizes.entries()) writeTail(readBack.objects[i] ?? [], size, 1 + i);
    for (const [i, size] of sizes.entries()) {
      const expected = new Uint8Array(size + 64).fill(1 + i);
      expected.set(bytesOf(i, size));
      assertSameBytes(concatParts(readBack.objects[i] ?? []), expected, `object ${i}`);
    }
  },
);

deviceTest("writing a tail does not change the device's memory", async (device) => {
  using slab = slabOf(device, 1024);
  const bytes = bytesOf(1, 1024);
  device.upload(slab.whole, [bytes]);
  for (const byteLength of [256, 1024]) {
    const range = { ...slab.whole, byteLength };
    using readBack = await device.readBack([{ range, tailBytes: 64 }]);
    writeTail(readBack.objects[0] ?? [], byteLength, 0xee);
  }
  assertSameBytes(await readRange(device, slab.whole), bytes);
});

deviceTest(
  "readBack() returns all earlier uploads and copies each time",
  async (device) => {
    using a = slabOf(device, 4096);
    using b = slabOf(device, 4096);
    for (let round = 0; round < 20; round++) {
      device.upload(a.whole, [bytesOf(round, 4096)]);
      device.copy([{
        source: a.buffer,
        sourceOffset: 0,
        destination: b.buffer,
        destinationOffset: 0,
        byteLength: 4096,
      }]);
      assertSameBytes(await readRange(device, b.whole), bytesOf(round, 4096), `round ${round}`);
    }
  },
  { stagingBytes: STAGING_BLOCK_BYTES },
);

// WebGPU ends the process, or fails long after the call, on arguments like these.
const BAD_RANGES: readonly (readonly [number, number])[] = [
  [0, 0],
  [0, -4],
  [0, 2],
  [0, 5],
  [2, 4],
  [-4, 4],
  [0, 1028],
  [1020, 8],
  [1024, 4],
  [NaN, 4],
  [0, NaN],
  [0, Infinity],
  [0, 4.5],
  [2 ** 53, 4],
];

for (const [byteOffset, byteLength] of BAD_RANGES) {
  deviceTest(
    `a range of ${byteLength} bytes at ${byteOffset} of 1024 is refused`,
    async (device) => {
      using slab = slabOf(device, 1024);
      using other = slabOf(device, 8192);
      const bytes = bytesOf(1, 1024);
      device.upload(slab.whole, [bytes]);
      const { buffer } = slab;
      const range = { buffer, byteOffset, byteLength };
      const parts = [new Uint8Array(Math.min(4096, Math.max(0, Math.floor(byteLength) || 0)))];
      assertThrows(() => device.upload(range, parts), RangeError, "Upload range");
      const good = { source: other.buffer, sourceOffset: 0, destinationOffset: 0 };
      const into = { ...good, destination: buffer, destinationOffset: byteOffset, byteLength };
      assertThrows(() => device.copy([into]), RangeError, "Copy");
      const from = { ...good, source: buffer, sourceOffset: byteOffset, destination: other.buffer };
      assertThrows(() => device.copy([{ ...from, byteLength }]), RangeError, "Copy source");
      await assertRejects(
        () => device.readBack([{ range, tailBytes: 0 }]),
        RangeError,
        "Read-back",
      );
      assertSameBytes(await readRange(device, slab.whole), bytes);
    },
  );
}

deviceTest("upload() rejects parts that do not fill the range", async (device) => {
  using slab = slabOf(device, 1024);
  const cases: readonly (readonly number[])[] = [[], [0], [4], [12], [4, 0, 4], [8, 4], [6, 2], [
    3,
    5,
  ]];
  for (const sizes of cases) {
    const parts = sizes.map((size) => new Uint8Array(size).fill(1));
    const range = { ...slab.whole, byteLength: 8 };
    assertThrows(() => device.upload(range, parts), RangeError, "Upload", `${sizes}`);
  }
  assertSameBytes(await readRange(device, slab.whole), new Uint8Array(1024), "nothing was written");
});

deviceTest("copy() rejects one buffer as source and destination", (device) => {
  using slab = slabOf(device, 1024);
  const { buffer } = slab;
  const operation = {
    source: buffer,
    sourceOffset: 0,
    destination: buffer,
    destinationOffset: 512,
    byteLength: 4,
  };
  assertThrows(() => device.copy([operation]), RangeError, "different buffers");
});

deviceTest("copy() does nothing if one of its operations is rejected", async (device) => {
  using source = slabOf(device, 256);
  using destination = slabOf(device, 256);
  device.upload(source.whole, [bytesOf(1, 256)]);
  const operation = {
    source: source.buffer,
    sourceOffset: 0,
    destination: destination.buffer,
    destinationOffset: 0,
    byteLength: 256,
  };
  assertThrows(() => device.copy([operation, { ...operation, byteLength: 0 }]), RangeError);
  assertSameBytes(await readRange(device, destination.whole), new Uint8Array(256));
});

deviceTest("a buffer of another kind of device is rejected", async (device) => {
  using slab = slabOf(device, 1024);
  const range = { buffer: foreignBuffer(device), byteOffset: 0, byteLength: 256 };
  assertThrows(() => device.upload(range, [new Uint8Array(256)]), TypeError, "requires");
  await assertRejects(() => device.readBack([{ range, tailBytes: 0 }]), TypeError, "requires");
  const offsets = { sourceOffset: 0, destinationOffset: 0, byteLength: 256 };
  for (const [source, destination] of [[slab.buffer, range.buffer], [range.buffer, slab.buffer]]) {
    assert(source !== undefined && destination !== undefined);
    assertThrows(() => device.copy([{ source, destination, ...offsets }]), TypeError, "requires");
  }
});

deviceTest("createSlab() rejects invalid sizes", (device) => {
  const tooLarge = device.maxSlabBytes + 4;
  for (const byteLength of [0, -4, 2, 257, NaN, Infinity, tooLarge]) {
    assertThrows(() => device.createSlab(byteLength), RangeError, "Slab", `${byteLength}`);
  }
});

deviceTest("countReadable() is the limit of one readBack()", async (device) => {
  using slab = slabOf(device, 4 * MIB);
  const request = { range: { ...slab.whole, byteLength: 3 * MIB }, tailBytes: 64 };
  for (const wanted of [1, 2, 3, 5]) {
    const requests = Array.from({ length: wanted }, () => request);
    const count = device.countReadable(requests.map(() => 3 * MIB + 64));
    assertEquals(count, device.type === "host" ? wanted : Math.min(wanted, 2));
    using readBack = await device.readBack(requests.slice(0, count));
    assertEquals(readBack.objects.length, count);
  }
}, { stagingBytes: 2 * STAGING_BLOCK_BYTES });

deviceTest("a working device is not lost", async (device) => {
  assert(!device.isLost);
  const first = await Promise.race([device.lost, Promise.resolve("not lost")]);
  assertEquals(first, "not lost");
  assert(device.description.length > 0);
});

Deno.test("DeviceLostError has the name of its class", () => {
  const error = new DeviceLostError("gone");
  assertEquals([error.name, error.message], ["DeviceLostError", "gone"]);
  assert(error instanceof Error);
});
