import type { CopyOperation, DeviceBuffer } from "../../src/memory/memory_device.ts";

/** Copies of `byteLength` bytes from every second place of a buffer to another one. */
export function strided(
  source: DeviceBuffer,
  destination: DeviceBuffer,
  count: number,
  byteLength: number,
  first = 0,
): CopyOperation[] {
  return Array.from({ length: count }, (_, i) => ({
    source,
    sourceOffset: (first + i) * byteLength * 2,
    destination,
    destinationOffset: (first + i) * byteLength,
    byteLength,
  }));
}

/** Counts what a device records. */
export function watchCommands(gpuDevice: GPUDevice): { dispatches: number; copies: number } {
  const watched = { dispatches: 0, copies: 0 };
  const create = gpuDevice.createCommandEncoder.bind(gpuDevice);
  gpuDevice.createCommandEncoder = (descriptor) => {
    const encoder = create(descriptor);
    const begin = encoder.beginComputePass.bind(encoder);
    const copy = encoder.copyBufferToBuffer.bind(encoder) as (...args: unknown[]) => undefined;
    encoder.copyBufferToBuffer = (...args: unknown[]) => (watched.copies++, copy(...args));
    encoder.beginComputePass = (pass) => {
      const begun = begin(pass);
      const dispatch = begun.dispatchWorkgroups.bind(begun);
      begun.dispatchWorkgroups = (...counts) => (watched.dispatches++, dispatch(...counts));
      return begun;
    };
    return encoder;
  };
  return watched;
}
