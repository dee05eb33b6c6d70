/// <reference types="@webgpu/types" />

/** Alignment of every range in device memory, in bytes. */
export const RANGE_ALIGNMENT = 256;

/** Memory of a device: a WebGPU buffer, or bytes in host memory. */
export type DeviceBuffer = GPUBuffer | Uint8Array;

/** A range of a buffer. */
export interface MemoryRange {
  /** The buffer. */
  readonly buffer: DeviceBuffer;
  /** Offset in bytes. */
  readonly byteOffset: number;
  /** Size in bytes. */
  readonly byteLength: number;
}

/** Whether a device accepted an operation, known immediately or later. Never rejects. */
export type DeviceAnswer = boolean | Promise<boolean>;

/** A large buffer that the device owns and an allocator divides. */
export interface Slab {
  /** The buffer. */
  readonly buffer: DeviceBuffer;
  /** Size in bytes. */
  readonly byteLength: number;
  /** Whether the device has allocated the memory. */
  readonly valid: DeviceAnswer;
}

/** A copy within device memory. */
export interface CopyOperation {
  /** Source buffer. */
  readonly source: DeviceBuffer;
  /** Offset in `source`, a multiple of 4. */
  readonly sourceOffset: number;
  /** Destination buffer; must not be `source`. */
  readonly destination: DeviceBuffer;
  /** Offset in `destination`, a multiple of 4. */
  readonly destinationOffset: number;
  /** Number of bytes, a multiple of 4. */
  readonly byteLength: number;
}

/**
 * The way to copy within device memory: in a compute shader (`kernel`) or individually (`copies`).
 */
export type CopyPath = "kernel" | "copies";

/** The path chosen for copies of one size on a device, with the measured times. */
export interface MeasuredCopyPath {
  /** Mean size of a copy in bytes, rounded up to a power of 4, from 1 KiB to 256 KiB. */
  readonly bytesPerCopy: number;
  /** The chosen path. If the device rejects the kernel, it is `copies`, without times. */
  readonly path: CopyPath;
  /** Milliseconds of the copies of the trial by the kernel. */
  readonly kernelMs?: number;
  /** Milliseconds of the same copies one by one. */
  readonly copiesMs?: number;
}

/** Bytes for a range. */
export interface Upload {
  /** Where they go. */
  readonly range: MemoryRange;
  /** The bytes, which fill the range exactly. */
  readonly parts: readonly Uint8Array[];
}

/** An object to copy to the host. */
export interface ReadBackRequest {
  /** Device memory of the object. */
  readonly range: MemoryRange;
  /** Bytes to reserve after the object, for a trailer. */
  readonly tailBytes: number;
}

/** Objects copied to the host; valid until disposed. */
export interface ReadBack extends Disposable {
  /**
   * The parts of each object. Together they have the `byteLength` bytes of the object, followed by
   * `tailBytes` bytes for the caller to write.
   */
  readonly objects: readonly (readonly Uint8Array[])[];
  /**
   * Stops counting the buffers against the limit of read-backs, so that other read-backs do not wait
   * for them. For a caller that cannot tell when it will dispose of the objects.
   */
  abandon(): void;
}

/** The loss of a device. */
export interface DeviceLoss {
  /** Reason reported by the device. */
  readonly message: string;
}

/** Thrown when a device, or data in its memory, is used after the device was lost. */
export class DeviceLostError extends Error {
  /** The name of the class. */
  override readonly name = "DeviceLostError";
}

/**
 * Allocates and copies bytes on a device. Independent of keys and tiers.
 *
 * All sizes and offsets are in bytes and multiples of 4. {@linkcode upload} and {@linkcode copy}
 * return immediately and take effect in the order of the calls, before any work submitted to the
 * device's queue later.
 */
export interface MemoryDevice extends Disposable {
  /** Kind of memory. */
  readonly type: "webgpu" | "host";
  /** Description of the device. */
  readonly description: string;
  /** Whether the device is implemented in software. */
  readonly isFallback: boolean;
  /** Maximum size of a slab, in bytes. */
  readonly maxSlabBytes: number;
  /** Whether the device is lost, and with it the contents of its memory. */
  readonly isLost: boolean;
  /** Resolves when the device is lost; never rejects. */
  readonly lost: Promise<DeviceLoss>;
  /** The paths chosen so far, for devices that have a choice. */
  readonly copyPaths?: readonly MeasuredCopyPath[];
  /**
   * Creates a slab. If the device is out of memory, the slab is not `valid`.
   *
   * @throws {RangeError} If the size is not a positive multiple of 4 up to `maxSlabBytes`.
   */
  createSlab(byteLength: number): Slab;
  /** Releases a slab. */
  destroySlab(slab: Slab): void;
  /**
   * Copies `parts` in sequence into `range`, which they must fill exactly. The parts may be reused
   * when the call returns.
   *
   * @throws {RangeError} If the sizes do not fit or are not multiples of 4.
   */
  upload(range: MemoryRange, parts: readonly Uint8Array[]): void;
  /**
   * Like {@linkcode upload}, for several ranges. If it returns a promise, other threads copy, and
   * neither the ranges nor the parts may be used before that resolves; it never rejects.
   *
   * @throws {RangeError} As {@linkcode upload}; nothing is copied then.
   */
  uploadAll(uploads: readonly Upload[]): void | Promise<void>;
  /**
   * Copies within device memory, all operations in one submission. Dependent operations take effect
   * in order.
   *
   * @returns Whether the device accepts the copies. Some devices report later that a buffer belongs
   * to another device or was destroyed, and then copy nothing.
   * @throws {RangeError} If an operation is empty, misaligned or out of range.
   * @throws {TypeError} If a buffer is of another kind, is mapped, or lacks the usage for copies.
   */
  copy(operations: readonly CopyOperation[]): DeviceAnswer;
  /** Number of leading objects of the given sizes, including tails, that fit into one read-back. */
  countReadable(sizes: readonly number[]): number;
  /**
   * Copies objects to the host, with a single wait for the device. Until it resolves, the objects
   * must not change.
   *
   * @throws {RangeError} If they do not fit into the read-back buffers.
   * @throws {DeviceLostError} If the device is lost.
   */
  readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack>;
}

/** Size of a buffer in bytes. */
export function bufferBytes(buffer: DeviceBuffer): number {
  return buffer instanceof Uint8Array ? buffer.byteLength : buffer.size;
}

/** Throws unless the range lies within its buffer, is aligned to 4 bytes and is not empty. */
export function checkRange(what: string, range: MemoryRange): void {
  const { buffer, byteOffset, byteLength } = range;
  const fits = isWords(byteOffset, 0) && isWords(byteLength, 4) &&
    byteOffset + byteLength <= bufferBytes(buffer);
  if (!fits) {
    throw new RangeError(
      `${what} must be a multiple of 4 bytes inside a buffer of ${
        bufferBytes(buffer)
      }: received ${byteLength} bytes at ${byteOffset}`,
    );
  }
}

/** Throws unless both sides of a copy are valid ranges of different buffers. */
export function checkCopy(operation: CopyOperation): void {
  const { source, sourceOffset, destination, destinationOffset, byteLength } = operation;
  checkRange("Copy source", { buffer: source, byteOffset: sourceOffset, byteLength });
  checkRange("Copy destination", {
    buffer: destination,
    byteOffset: destinationOffset,
    byteLength,
  });
  if (source === destination) {
    throw new RangeError("Copy source and destination must be different buffers");
  }
}

/** Throws unless `parts` are multiples of 4 bytes that fill `range` exactly. */
export function checkUpload(range: MemoryRange, parts: readonly Uint8Array[]): void {
  checkRange("Upload range", range);
  let total = 0;
  for (const part of parts) {
    // WebGPU implementations report an empty or odd-sized view late, or abort the process.
    if (!isWords(part.byteLength, 4)) {
      throw new RangeError(
        `Upload parts must be a positive multiple of 4 bytes: received ${part.byteLength}`,
      );
    }
    total += part.byteLength;
  }
  if (total !== range.byteLength) {
    throw new RangeError(
      `Upload must fill its range of ${range.byteLength} bytes: received ${total}`,
    );
  }
}

/** Throws unless `byteLength` is a valid slab size for a device with the given maximum. */
export function checkSlab(byteLength: number, maxSlabBytes: number): void {
  if (!isWords(byteLength, 4) || byteLength > maxSlabBytes) {
    throw new RangeError(
      `Slab must be a positive multiple of 4 up to ${maxSlabBytes} bytes: received ${byteLength}`,
    );
  }
}

function isWords(value: number, minimum: number): boolean {
  return Number.isSafeInteger(value) && value >= minimum && value % 4 === 0;
}
