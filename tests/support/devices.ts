import { assertEquals } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { MemoryDevice, MemoryRange } from "../../src/memory/memory_device.ts";
import { WebGpuDevice, type WebGpuDeviceOptions } from "../../src/memory/webgpu_device.ts";

/** Registers a test for host memory and a second one for WebGPU. */
export function deviceTest(
  name: string,
  run: (device: MemoryDevice) => void | Promise<void>,
  options: WebGpuDeviceOptions = {},
): void {
  Deno.test(`${name} [host]`, () => run(new HostDevice()));
  gpuTest(`${name} [webgpu]`, async (gpuDevice) => {
    using device = WebGpuDevice.adopt(gpuDevice, options);
    await run(device);
  });
}

/**
 * Registers a test that needs WebGPU. It gets its own device, must destroy all buffers and must not
 * cause validation errors. Without a WebGPU adapter it fails if `KVTIER_REQUIRE_GPU` is 1, and
 * otherwise reports that it did not run.
 */
export function gpuTest(name: string, run: (gpuDevice: GPUDevice) => void | Promise<void>): void {
  Deno.test(name, async (t) => {
    const adapter = await navigator.gpu.requestAdapter();
    if (adapter === null) {
      if (Deno.env.get("KVTIER_REQUIRE_GPU") === "1") {
        throw new Error("No WebGPU adapter, and KVTIER_REQUIRE_GPU=1 asks for one");
      }
      await t.step("no WebGPU adapter here: not run", () => {});
      return;
    }
    const gpuDevice = await adapter.requestDevice();
    const live = watchBuffers(gpuDevice);
    const errors: string[] = [];
    gpuDevice.addEventListener("uncapturederror", (event) => {
      errors.push((event as GPUUncapturedErrorEvent).error.message);
    });
    try {
      await run(gpuDevice);
      assertEquals(live.bytes, 0, "bytes of GPU buffers that were not destroyed");
      assertEquals(errors, [], "GPU errors");
    } finally {
      // The threads of a software driver must be idle before its device, or the process, ends.
      await gpuDevice.queue.onSubmittedWorkDone();
      gpuDevice.destroy();
    }
  });
}

/** Counts the bytes of a device's live buffers. */
function watchBuffers(gpuDevice: GPUDevice): { bytes: number } {
  const live = { bytes: 0 };
  const create = gpuDevice.createBuffer.bind(gpuDevice);
  gpuDevice.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    const destroy = buffer.destroy.bind(buffer);
    let isLive = true;
    live.bytes += descriptor.size;
    buffer.destroy = () => {
      if (isLive) live.bytes -= descriptor.size;
      isLive = false;
      return destroy();
    };
    return buffer;
  };
  return live;
}

/** Reads a range of device memory. */
export async function readRange(device: MemoryDevice, range: MemoryRange): Promise<Uint8Array> {
  using readBack = await device.readBack([{ range, tailBytes: 0 }]);
  const bytes = new Uint8Array(range.byteLength);
  let offset = 0;
  for (const piece of readBack.objects[0] ?? []) {
    bytes.set(piece, offset);
    offset += piece.byteLength;
  }
  return bytes;
}
