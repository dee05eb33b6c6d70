import { copyParts, frontOfParts } from "../base/byte_parts.ts";
import type { IoWorkers } from "../base/io/io_workers.ts";
import { alignedBytes } from "./aligned_bytes.ts";
import { lendBlocks } from "./lent_blocks.ts";
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
  type Upload,
} from "./memory_device.ts";
import { packObjects, STAGING_BLOCK_BYTES, StagingPool } from "./staging_pool.ts";
import { copyBytes, type HostCopy, MIN_THREAD_BYTES, sharedBytes } from "./thread_copies.ts";

/**
 * Lets worker threads copy large objects of a device; `undefined` makes it copy all itself. The
 * caller owns the threads.
 */
export let setCopyThreads: (device: HostDevice, threads: IoWorkers | undefined) => void;

/**
 * Device memory in memory of the host, for hosts without WebGPU and for fast tests. Threads share
 * it if the host has such memory.
 */
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
  /** Reused, because memory costs most when it is used for the first time. */
  readonly #staging = new StagingPool<Uint8Array>({
    blockBytes: STAGING_BLOCK_BYTES,
    capacityBytes: Infinity,
    create: () => alignedBytes(STAGING_BLOCK_BYTES),
    destroy: () => {},
  });
  #threads: IoWorkers | undefined;

  /** Creates a slab of zeros. */
  createSlab(byteLength: number): Slab {
    checkSlab(byteLength, this.maxSlabBytes);
    try {
      return { buffer: sharedBytes(byteLength), byteLength, valid: true };
    } catch {
      // Out of memory.
      return { buffer: new Uint8Array(0), byteLength, valid: false };
    }
  }

  /** Leaves a slab to the garbage collector. */
  destroySlab(_slab: Slab): void {}

  /** Copies bytes into a range. */
  upload(range: MemoryRange, parts: readonly Uint8Array[]): void {
    checkUpload(range, parts);
    copyParts(parts, hostBytes(range.buffer), range.byteOffset);
  }

  /** Copies bytes into ranges, in worker threads if the cache has given it some. */
  uploadAll(uploads: readonly Upload[]): void | Promise<void> {
    for (const { range, parts } of uploads) checkUpload(range, parts);
    return copyBytes(
      uploads.flatMap(({ range, parts }) => {
        let at = range.byteOffset;
        return parts.map((from): HostCopy => {
          const to = hostBytes(range.buffer).subarray(at, at += from.byteLength);
          return { from, to };
        });
      }),
      this.#threads,
    );
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

  /** Copies the objects, in worker threads if they are large and the cache has given it some. */
  async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    for (const { range } of requests) checkRange("Read-back range", range);
    const sources = requests.map(({ range: { buffer, byteOffset, byteLength } }) =>
      hostBytes(buffer).subarray(byteOffset, byteOffset + byteLength)
    );
    const sizes = requests.map(({ range, tailBytes }) => range.byteLength + tailBytes);
    if (sizes.reduce((sum, size) => sum + size, 0) < MIN_THREAD_BYTES) {
      const objects = sources.map((source, i) => {
        const bytes = new Uint8Array(sizes[i] ?? 0);
        bytes.set(source);
        return [bytes];
      });
      return { objects, abandon: () => {}, [Symbol.dispose]: () => {} };
    }
    const packing = packObjects(sizes, STAGING_BLOCK_BYTES);
    const blocks = await this.#staging.acquire(packing.usedBytes.length);
    const objects = packing.objects.map((parts) =>
      parts.map(({ block, byteOffset, byteLength }) =>
        (blocks[block] as Uint8Array).subarray(byteOffset, byteOffset + byteLength)
      )
    );
    await copyBytes(objects.flatMap((parts, i) => copiesInto(parts, sources[i])), this.#threads);
    return lendBlocks(this.#staging, blocks, objects);
  }

  /** Drops the buffers of read-backs; the garbage collector frees the rest. */
  [Symbol.dispose](): void {
    this.#staging[Symbol.dispose]();
  }

  static {
    setCopyThreads = (device, threads) => void (device.#threads = threads);
  }
}

/** The copies of an object into parts, which may be longer in all. */
function copiesInto(
  parts: readonly Uint8Array[],
  source: Uint8Array = new Uint8Array(),
): HostCopy[] {
  let at = 0;
  return frontOfParts(parts, source.byteLength).map((to) => {
    return { from: source.subarray(at, at += to.byteLength), to };
  });
}

function hostBytes(buffer: DeviceBuffer): Uint8Array {
  if (buffer instanceof Uint8Array) return buffer;
  throw new TypeError("Host memory requires Uint8Array buffers: received a GPUBuffer");
}
