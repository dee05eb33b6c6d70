import { HostDevice } from "../../memory/host_device.ts";
import type { MemoryDevice } from "../../memory/memory_device.ts";
import { WebGpuDevice, type WebGpuDeviceOptions } from "../../memory/webgpu_device.ts";

/**
 * The memory in which onnxruntime-web decodes fastest on this machine, to be passed as `device` to
 * `TieredCache.open()`: a GPUDevice where there is a GPU, else host memory, since its wasm provider
 * is faster than a GPU in software. The caller disposes it, after the cache.
 */
export async function requestEngineDevice(
  options: WebGpuDeviceOptions = {},
): Promise<MemoryDevice> {
  const device = await WebGpuDevice.request(options);
  if (device === null) return new HostDevice();
  if (!device.isFallback) return device;
  device[Symbol.dispose]();
  return new HostDevice();
}
