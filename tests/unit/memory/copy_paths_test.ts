import { assert, assertEquals, assertRejects } from "@std/assert";
import { CopyPaths } from "../../../src/memory/copy_paths.ts";
import { type CopyOperation, DeviceLostError } from "../../../src/memory/memory_device.ts";
import { forceCopyPath, WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { strided, watchCommands } from "../../support/copies.ts";
import { gpuTest, readRange } from "../../support/devices.ts";

const MIB = 2 ** 20;
const ENGINE = 4 | 8 | 128; // GPUBufferUsage.COPY_SRC | COPY_DST | STORAGE
const COPIED = 4 | 8;

/** Two buffers of a device, which stay until disposed. */
class Pair implements Disposable {
  readonly source: GPUBuffer;
  readonly destination: GPUBuffer;

  constructor(gpuDevice: GPUDevice, usage = ENGINE) {
    this.source = gpuDevice.createBuffer({ size: 4 * MIB, usage });
    this.destination = gpuDevice.createBuffer({ size: 2 * MIB, usage });
  }

  operations(count: number, byteLength: number): CopyOperation[] {
    return strided(this.source, this.destination, count, byteLength);
  }

  /** Reads so many bytes back, as a store does. */
  async readBack(device: WebGpuDevice, byteLength: number): Promise<void> {
    await readRange(device, { buffer: this.destination, byteOffset: 0, byteLength });
  }

  [Symbol.dispose](): void {
    this.source.destroy();
    this.destination.destroy();
  }
}

gpuTest("the path of many short copies is measured at the next long read-back", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  using pair = new Pair(gpu);
  await device.copy(pair.operations(128, 16 * 1024));
  await pair.readBack(device, 4096);
  assertEquals(device.copyPaths, [], "an engine may wait for a short one");
  await pair.readBack(device, MIB);
  const [measured] = device.copyPaths;
  assertEquals([device.copyPaths.length, measured?.bytesPerCopy], [1, 16 * 1024]);
  const { path, kernelMs = -1, copiesMs = -1 } = measured ?? {};
  assertEquals(path, kernelMs < 0.8 * copiesMs ? "kernel" : "copies");
  assert(kernelMs >= 0 && copiesMs >= 0);
  await using cache = await TieredCache.open({ device });
  assertEquals(cache.reportStatus().device.copyPaths, device.copyPaths);
});

gpuTest("copies that a kernel cannot speed up trigger no measurement", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  using pair = new Pair(gpu);
  using plain = new Pair(gpu, COPIED);
  await device.copy(pair.operations(63, 32 * 1024));
  await device.copy(pair.operations(64, 4096));
  await device.copy(pair.operations(2, MIB));
  await device.copy(Array.from({ length: 64 }, () => pair.operations(1, 300 * 1024)).flat());
  await device.copy(plain.operations(64, 32 * 1024));
  await pair.readBack(device, MIB);
  assertEquals(device.copyPaths, []);
});

gpuTest("the faster path is taken for copies of its size", async (gpu) => {
  const commands = watchCommands(gpu);
  // A device on which a dispatch costs as much as ten copies: its time are its commands.
  const now = (): number => commands.copies + 10 * commands.dispatches;
  const paths = new CopyPaths(gpu, now);
  using pair = new Pair(gpu);
  const record = (operations: readonly CopyOperation[]): typeof commands => {
    const before = { ...commands };
    const encoder = gpu.createCommandEncoder();
    paths.record(encoder, operations);
    gpu.queue.submit([encoder.finish()]);
    return {
      dispatches: commands.dispatches - before.dispatches,
      copies: commands.copies - before.copies,
    };
  };
  const [short, long] = [pair.operations(128, 16 * 1024), pair.operations(64, 32 * 1024)];
  assertEquals(record(short), { dispatches: 0, copies: 128 });
  assertEquals(record(long), { dispatches: 0, copies: 64 });
  await paths.measureDue();
  assertEquals(paths.measured, [
    { bytesPerCopy: 16 * 1024, path: "kernel", kernelMs: 10, copiesMs: 256 },
    { bytesPerCopy: 64 * 1024, path: "kernel", kernelMs: 10, copiesMs: 64 },
  ]);
  assertEquals(record(short), { dispatches: 1, copies: 0 });
  assertEquals(record(pair.operations(63, 16 * 1024)), { dispatches: 0, copies: 63 });
  await paths.force("copies");
  assertEquals(record(short), { dispatches: 0, copies: 128 });
  await paths.force(undefined);
  paths[Symbol.dispose]();
  assertEquals(record(short), { dispatches: 0, copies: 128 }, "without a kernel");
});

gpuTest("a device that rejects the kernel uses individual copies", async (gpu) => {
  const compile = gpu.createShaderModule.bind(gpu);
  gpu.createShaderModule = () => compile({ code: "no shader" });
  using device = WebGpuDevice.adopt(gpu);
  using pair = new Pair(gpu);
  assertEquals(await device.copy(pair.operations(64, 32 * 1024)), true);
  await pair.readBack(device, MIB);
  assertEquals(device.copyPaths, [{ bytesPerCopy: 64 * 1024, path: "copies" }]);
  assertEquals(await device.copy(pair.operations(64, 32 * 1024)), true);
  await assertRejects(() => forceCopyPath(device, "kernel"), Error, "rejects");
});

gpuTest("a device without memory for a trial uses individual copies", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  using pair = new Pair(gpu);
  await device.copy(pair.operations(64, 32 * 1024));
  const create = gpu.createBuffer.bind(gpu);
  gpu.createBuffer = (descriptor) =>
    create(
      descriptor.label === "kvtier copy trial"
        ? { ...descriptor, size: gpu.limits.maxBufferSize + 4 }
        : descriptor,
    );
  await pair.readBack(device, MIB);
  assertEquals(device.copyPaths, [{ bytesPerCopy: 64 * 1024, path: "copies" }]);
});

gpuTest("a disposed device destroys the buffers of a measurement", async (gpu) => {
  const create = gpu.createBuffer.bind(gpu);
  const live = new Set<GPUBuffer>();
  gpu.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    const destroy = buffer.destroy.bind(buffer);
    live.add(buffer);
    buffer.destroy = () => (live.delete(buffer), destroy());
    return buffer;
  };
  using device = WebGpuDevice.adopt(gpu);
  using pair = new Pair(gpu);
  await device.copy(pair.operations(64, 32 * 1024));
  const { promise: hanging, resolve: goOn } = Promise.withResolvers<undefined>();
  const { promise: waiting, resolve } = Promise.withResolvers<void>();
  gpu.queue.onSubmittedWorkDone = () => (resolve(), hanging);
  const reading = assertRejects(() => pair.readBack(device, MIB), Error, "closed");
  await waiting;
  assertEquals(live.size, 5, "two, and of the trial two and a table");
  device[Symbol.dispose]();
  assertEquals(live.size, 2);
  goOn(undefined);
  await reading;
  Reflect.deleteProperty(gpu.queue, "onSubmittedWorkDone");
});

for (const end of ["lost", "disposed"] as const) {
  for (const waits of [1, 2, 4]) {
    gpuTest(`a device that is ${end} at wait ${waits} of a measurement ends it`, async (gpu) => {
      using device = WebGpuDevice.adopt(gpu);
      using pair = new Pair(gpu);
      await device.copy(pair.operations(64, 32 * 1024));
      const { queue } = gpu;
      const wait = queue.onSubmittedWorkDone.bind(queue);
      let count = 0;
      queue.onSubmittedWorkDone = async () => {
        if (++count === waits) {
          if (end === "lost") gpu.destroy();
          else device[Symbol.dispose]();
        }
        return await wait();
      };
      await assertRejects(
        () => pair.readBack(device, MIB),
        end === "lost" ? DeviceLostError : Error,
      );
      assert(count >= waits);
      assertEquals(device.copyPaths, []);
      await device.copy(pair.operations(64, 32 * 1024));
    });
  }
}
