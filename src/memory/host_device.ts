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
  /** The kind of memory. */
  readonly type = "host";
  /** The device in words. */
  readonly description = "host memory";
  /** Host memory stands in for a GPU. */
  readonly isFallback = true;
  /** Largest slab. */
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
      // The host refuses the memory.
      return { buffer: new Uint8Array(0), byteLength, valid: false };
    }
  }

  /** Leaves a slab to the garbage collector. */
  destroySlab(_slab: Slab): void {}

  /** Copies bytes into a range. */
  upload(range: MemoryRange, pieces: readonly Uint8Array<ArrayBuffer>[]): void {
    checkUpload(range, pieces);
    const bytes = hostBytes(range.buffer);
    let offset = range.byteOffset;
    for (const piece of pieces) {
      bytes.set(piece, offset);
      offset += piece.byteLength;
    }
  }

  /** Copies between buffers, at once. */
  copy(operations: readonly CopyOperation[]): DeviceAnswer {
    for (const operation of operations) checkCopy(operation);
    for (const { source, sourceOffset, destination, destinationOffset, byteLength } of operations) {
      const bytes = hostBytes(source).subarray(sourceOffset, sourceOffset + byteLength);
      hostBytes(destination).set(bytes, destinationOffset);
    }
    return true;
  }

  /** All of them: there are no read-back buffers to fill. */
  countReadable(sizes: readonly number[]): number {
    return sizes.length;
  }

  /** Copies the objects: whoever gets them cannot change what lies in device memory. */
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

  /** Nothing to release. */
  [Symbol.dispose](): void {}
}

function hostBytes(buffer: DeviceBuffer): Uint8Array<ArrayBuffer> {
  if (buffer instanceof Uint8Array) return buffer;
  throw new TypeError("Host memory takes Uint8Array buffers: received a GPUBuffer");
}
