import { HostDevice } from "../../memory/host_device.ts";
import type { MemoryDevice } from "../../memory/memory_device.ts";
import { WebGpuDevice, type WebGpuDeviceOptions } from "../../memory/webgpu_device.ts";

/**
 * Requests the device on which onnxruntime-web decodes fastest on this machine, for the `device`
 * option of `TieredCache.open()`: a GPUDevice if there is a GPU, otherwise host memory, because the
 * wasm provider is faster than a software GPU. The caller must dispose of it after the cache.
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
