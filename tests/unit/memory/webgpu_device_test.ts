import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import {
  DeviceLostError,
  type MemoryRange,
  type ReadBackRequest,
} from "../../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { gpuTest, readRange } from "../../support/devices.ts";
import { testBytes, testKey } from "../../support/objects.ts";
import { STAGING_BLOCK_BYTES } from "../../../src/memory/staging_pool.ts";

const MIB = 2 ** 20;

function wholeSlab(device: WebGpuDevice, byteLength: number): MemoryRange {
  return { buffer: device.createSlab(byteLength).buffer, byteOffset: 0, byteLength };
}

function requestOf(range: MemoryRange): ReadBackRequest {
  return { range, tailBytes: 0 };
}

/** Counts the live bytes of staging buffers, and how many were made. */
function watchStaging(gpuDevice: GPUDevice): { bytes: number; mostBytes: number; made: number } {
  const watched = { bytes: 0, mostBytes: 0, made: 0 };
  const create = gpuDevice.createBuffer.bind(gpuDevice);
  gpuDevice.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    if ((descriptor.usage & GPUBufferUsage.MAP_READ) === 0) return buffer;
    watched.made++;
    watched.bytes += descriptor.size;
    watched.mostBytes = Math.max(watched.mostBytes, watched.bytes);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      watched.bytes -= descriptor.size;
      return destroy();
    };
    return buffer;
  };
  return watched;
}

/** Uses a device the way its owner does: one buffer is written, copied and read. */
async function assertWorks(gpuDevice: GPUDevice): Promise<void> {
  const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
  const buffer = gpuDevice.createBuffer({ size: 4, usage });
  gpuDevice.queue.writeBuffer(buffer, 0, Uint8Array.of(1, 2, 3, 4));
  gpuDevice.queue.submit([]);
  await buffer.mapAsync(GPUMapMode.READ);
  assertEquals(new Uint8Array(buffer.getMappedRange()), Uint8Array.of(1, 2, 3, 4));
  buffer.destroy();
}

gpuTest(
  "WebGpuDevice.adopt() leaves the device alive and destroys its own buffers",
  async (gpu) => {
    let isLost = false;
    gpu.lost.then(() => isLost = true);
    const device = WebGpuDevice.adopt(gpu);
    const range = wholeSlab(device, 1024);
    wholeSlab(device, 2048);
    await readRange(device, range);
    device[Symbol.dispose]();
    // gpuTest() asserts that no buffer is left.
    await assertWorks(gpu);
    assertEquals(isLost, false);
  },
);

gpuTest("WebGpuDevice describes the adapter and its limits", (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  assertEquals(device.type, "webgpu");
  assert(device.description.length > 0);
  assertEquals(device.isFallback, gpu.adapterInfo.isFallbackAdapter);
  assertEquals(device.maxSlabBytes % 256, 0);
  assert(device.maxSlabBytes <= gpu.limits.maxBufferSize);
  assert(device.maxSlabBytes > gpu.limits.maxBufferSize - 256);
});

gpuTest("WebGpuDevice.request() creates a device and destroys it", async () => {
  const device = await WebGpuDevice.request();
  assert(device !== null);
  const range = wholeSlab(device, 1024);
  device.upload(range, [testBytes(testKey(1), 1024)]);
  assertSameBytes(await readRange(device, range), testBytes(testKey(1), 1024));
  assert(!device.isLost);
  device[Symbol.dispose]();
  await device.lost;
  assert(device.isLost);
});

gpuTest(
  "WebGpuDevice.request() requests the adapter's limits and the features of engines",
  async () => {
    const adapter = await navigator.gpu.requestAdapter();
    assert(adapter !== null);
    using device = await WebGpuDevice.request();
    assert(device !== null);
    const { limits, features } = device.gpuDevice;
    for (const name of ["maxBufferSize", "maxStorageBufferBindingSize"] as const) {
      assertEquals(limits[name], adapter.limits[name], name);
    }
    for (const feature of ["shader-f16", "subgroups"] as const) {
      assertEquals(features.has(feature), adapter.features.has(feature), feature);
    }
  },
);

Deno.test("WebGpuDevice.request() returns null without an adapter", async () => {
  const { gpu } = navigator;
  Object.defineProperty(gpu, "requestAdapter", {
    value: async () => await null,
    configurable: true,
  });
  try {
    assertEquals(await WebGpuDevice.request(), null);
  } finally {
    Reflect.deleteProperty(gpu, "requestAdapter");
  }
});

gpuTest("WebGpuDevice.destroySlab() destroys the buffer, once", (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  const slab = device.createSlab(1024);
  const buffer = slab.buffer as GPUBuffer;
  let destroyed = 0;
  const destroy = buffer.destroy.bind(buffer);
  buffer.destroy = () => (destroyed++, destroy());
  device.destroySlab(slab);
  device.destroySlab(slab);
  assertEquals(destroyed, 1);
});

gpuTest("WebGpuDevice creates slabs that can be bound as storage", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  const { buffer } = wholeSlab(device, 1024);
  const visibility = GPUShaderStage.COMPUTE;
  const layout = gpu.createBindGroupLayout({
    entries: [{ binding: 0, visibility, buffer: { type: "storage" } }],
  });
  gpu.pushErrorScope("validation");
  gpu.createBindGroup({
    layout,
    entries: [{ binding: 0, resource: { buffer: buffer as GPUBuffer, offset: 256, size: 256 } }],
  });
  assertEquals(await gpu.popErrorScope(), null);
});

gpuTest(
  "WebGpuDevice keeps read-back buffers within stagingBytes, and reuses them",
  async (gpu) => {
    const staging = watchStaging(gpu);
    using device = WebGpuDevice.adopt(gpu, { stagingBytes: 2 * STAGING_BLOCK_BYTES });
    const ranges = Array.from({ length: 6 }, (_, i) => wholeSlab(device, (1 + i) * MIB));
    for (const [i, range] of ranges.entries()) {
      device.upload(range, [testBytes(testKey(i), range.byteLength)]);
    }
    for (let round = 0; round < 3; round++) {
      const reads = await Promise.all(ranges.map((range) => readRange(device, range)));
      for (const [i, bytes] of reads.entries()) {
        assertSameBytes(bytes, testBytes(testKey(i), bytes.byteLength), `object ${i}`);
      }
    }
    assertEquals({ ...staging }, {
      bytes: 2 * STAGING_BLOCK_BYTES,
      mostBytes: 2 * STAGING_BLOCK_BYTES,
      made: 2,
    });
  },
);

gpuTest("WebGpuDevice.readBack() waits for buffers in use", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu, { stagingBytes: STAGING_BLOCK_BYTES });
  const range = wholeSlab(device, 1024);
  const first = await device.readBack([requestOf(range)]);
  let isDone = false;
  const second = device.readBack([requestOf(range)]);
  second.then(() => isDone = true);
  await gpu.queue.onSubmittedWorkDone();
  assert(!isDone);
  first[Symbol.dispose]();
  (await second)[Symbol.dispose]();
});

gpuTest("disposing a read-back twice returns its buffers once", async (gpu) => {
  const staging = watchStaging(gpu);
  using device = WebGpuDevice.adopt(gpu, { stagingBytes: STAGING_BLOCK_BYTES });
  const range = wholeSlab(device, 1024);
  const readBack = await device.readBack([requestOf(range)]);
  readBack[Symbol.dispose]();
  readBack[Symbol.dispose]();
  await Promise.all([readRange(device, range), readRange(device, range)]);
  assertEquals(staging.mostBytes, STAGING_BLOCK_BYTES);
});

gpuTest("a rejected read-back uses no buffers", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu, { stagingBytes: 2 * STAGING_BLOCK_BYTES });
  const range = wholeSlab(device, 8 * MIB);
  const foreign = { buffer: new Uint8Array(1024), byteOffset: 0, byteLength: 1024 };
  await assertRejects(() => device.readBack([requestOf(range), requestOf(range)]), RangeError);
  await assertRejects(() => device.readBack([requestOf(foreign)]), TypeError);
  await assertRejects(
    () => device.readBack([requestOf({ ...range, byteOffset: 4 })]),
    RangeError,
  );
  assertEquals((await readRange(device, range)).byteLength, 8 * MIB);
});

gpuTest("a staging capacity below one buffer is rejected", (gpu) => {
  assertThrows(
    () => WebGpuDevice.adopt(gpu, { stagingBytes: STAGING_BLOCK_BYTES - 1 }),
    RangeError,
    "Staging",
  );
});

gpuTest("WebGpuDevice.upload() submits regularly to limit host memory", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  const waiting = { bytes: 0, mostBytes: 0, largestWrite: 0 };
  const { queue } = gpu;
  const write = queue.writeBuffer.bind(queue);
  const submit = queue.submit.bind(queue);
  queue.writeBuffer = (buffer, offset, data, start, size = 0) => {
    waiting.bytes += size;
    waiting.mostBytes = Math.max(waiting.mostBytes, waiting.bytes);
    waiting.largestWrite = Math.max(waiting.largestWrite, size);
    return write(buffer, offset, data, start, size);
  };
  queue.submit = (commands) => {
    waiting.bytes = 0;
    return submit(commands);
  };
  const range = wholeSlab(device, 64 * MIB);
  const bytes = new Uint8Array(64 * MIB);
  for (let i = 0; i < bytes.length; i += 4096) bytes[i] = i / 4096;
  device.upload(range, [bytes.subarray(0, 40 * MIB), bytes.subarray(40 * MIB)]);
  const small = { ...range, byteLength: 5 * MIB };
  for (let i = 0; i < 8; i++) device.upload(small, [bytes.subarray(0, 5 * MIB)]);
  assert(waiting.largestWrite <= 16 * MIB, `${waiting.largestWrite} in one write`);
  assert(waiting.mostBytes < 32 * MIB, `${waiting.mostBytes} waiting`);
  assertSameBytes(await readRange(device, range), bytes);
});

gpuTest("a destroyed device is lost: read-backs reject, also those in progress", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu, { stagingBytes: 2 * STAGING_BLOCK_BYTES });
  const range = wholeSlab(device, 1024);
  const held = await device.readBack([requestOf(range)]);
  const reads = [0, 1].map(() => device.readBack([requestOf(range)]));
  const errors = reads.map((read) => read.then(() => null, (error: unknown) => error));
  gpu.destroy();
  assertInstanceOf(await errors[0], DeviceLostError);
  assert((await device.lost).message.length > 0);
  assert(device.isLost);
  held[Symbol.dispose]();
  assertInstanceOf(await errors[1], DeviceLostError, "it waited for buffers");
  await assertRejects(() => device.readBack([requestOf(range)]), DeviceLostError);
});

gpuTest("requests for read-back buffers reject when the device is lost", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu, { stagingBytes: STAGING_BLOCK_BYTES });
  const range = wholeSlab(device, 1024);
  const held = await device.readBack([requestOf(range)]);
  const waiting = assertRejects(() => device.readBack([requestOf(range)]), DeviceLostError);
  gpu.destroy();
  // The first one is not given back meanwhile.
  await waiting;
  await assertRejects(() => device.readBack([requestOf(range)]), DeviceLostError);
  held[Symbol.dispose]();
});

gpuTest("a lost device accepts calls without throwing, like WebGPU", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  const range = wholeSlab(device, 1024);
  gpu.destroy();
  await device.lost;
  const other = device.createSlab(1024);
  assertInstanceOf(other.valid, Promise);
  await other.valid;
  device.upload(range, [new Uint8Array(1024)]);
  device.copy([{
    source: range.buffer,
    sourceOffset: 0,
    destination: other.buffer,
    destinationOffset: 0,
    byteLength: 4,
  }]);
});

gpuTest("WebGpuDevice rejects read-backs after disposal", async (gpu) => {
  const device = WebGpuDevice.adopt(gpu);
  const range = wholeSlab(device, 1024);
  const held = await device.readBack([requestOf(range)]);
  device[Symbol.dispose]();
  await assertRejects(() => device.readBack([requestOf(range)]), Error, "closed");
  held[Symbol.dispose]();
});

gpuTest("a slab that the device cannot allocate is not valid", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  const create = gpu.createBuffer.bind(gpu);
  // What an exhausted device answers: a buffer that is invalid, and an error in the scope.
  gpu.createBuffer = (descriptor) => create({ ...descriptor, size: gpu.limits.maxBufferSize + 4 });
  const slab = device.createSlab(1024);
  gpu.createBuffer = create;
  assertEquals(await slab.valid, false);
  assertEquals(await device.createSlab(1024).valid, true);
});
