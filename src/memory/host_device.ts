import { copyParts } from "../base/byte_parts.ts";
import {
  checkCopy,
  checkRange,
  checkSlab,
  checkUpload,
  type CopyOperation,
  type DeviceAnswer,
  type DeviceBuffer,
  type DeviceLoss,
  type MemoryDevice,
  type MemoryRange,
  type ReadBack,
  type ReadBackRequest,
  type Slab,
} from "./memory_device.ts";

/** Device memory in ArrayBuffers, for hosts without WebGPU and for fast tests. */
export class HostDevice implements MemoryDevice {
  /** Kind of memory. */
  readonly type = "host";
  /** Description of the device. */
  readonly description = "host memory";
  /** Always `true`: host memory replaces a GPU. */
  readonly isFallback = true;
  /** Maximum size of a slab, in bytes. */
  readonly maxSlabBytes: number = 2 ** 31;
  /** Host memory is never lost. */
  readonly isLost: boolean = false;
  /** Never resolves. */
  readonly lost: Promise<DeviceLoss> = new Promise(() => {});

  /** Creates a slab of zeros. */
  createSlab(byteLength: number): Slab {
    checkSlab(byteLength, this.maxSlabBytes);
    try {
      return { buffer: new Uint8Array(byteLength), byteLength, valid: true };
    } catch {
      // Out of memory.
      return { buffer: new Uint8Array(0), byteLength, valid: false };
    }
  }

  /** Leaves a slab to the garbage collector. */
  destroySlab(_slab: Slab): void {}

  /** Copies bytes into a range. */
  upload(range: MemoryRange, parts: readonly Uint8Array<ArrayBuffer>[]): void {
    checkUpload(range, parts);
    copyParts(parts, hostBytes(range.buffer), range.byteOffset);
  }

  /** Copies between buffers synchronously. */
  copy(operations: readonly CopyOperation[]): DeviceAnswer {
    for (const operation of operations) checkCopy(operation);
    for (const { source, sourceOffset, destination, destinationOffset, byteLength } of operations) {
      const bytes = hostBytes(source).subarray(sourceOffset, sourceOffset + byteLength);
      hostBytes(destination).set(bytes, destinationOffset);
    }
    return true;
  }

  /** Returns the number of all objects: there is no limit on read-back buffers. */
  countReadable(sizes: readonly number[]): number {
    return sizes.length;
  }

  /** Returns copies of the objects, so that changes to them do not affect device memory. */
  readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    return Promise.try(() => {
      const objects = requests.map(({ range, tailBytes }) => {
        checkRange("Read-back range", range);
        const { buffer, byteOffset, byteLength } = range;
        const bytes = new Uint8Array(byteLength + tailBytes);
        bytes.set(hostBytes(buffer).subarray(byteOffset, byteOffset + byteLength));
        return [bytes];
      });
      return { objects, abandon: () => {}, [Symbol.dispose]: () => {} };
    });
  }

  /** Does nothing: the garbage collector frees host memory. */
  [Symbol.dispose](): void {}
}

function hostBytes(buffer: DeviceBuffer): Uint8Array<ArrayBuffer> {
  if (buffer instanceof Uint8Array) return buffer;
  throw new TypeError("Host memory requires Uint8Array buffers: received a GPUBuffer");
}
