/// <reference types="@webgpu/types" />

/** Alignment of every range in device memory, in bytes. */
export const RANGE_ALIGNMENT = 256;

/** Memory that a device addresses: a WebGPU buffer, or bytes of the host. */
export type DeviceBuffer = GPUBuffer | Uint8Array<ArrayBuffer>;

/** A part of a buffer, in bytes. */
export interface MemoryRange {
  /** The buffer it lies in. */
  readonly buffer: DeviceBuffer;
  /** Where it starts. */
  readonly byteOffset: number;
  /** How long it is. */
  readonly byteLength: number;
}

/** Whether a device did something: said at once, or soon. The promise never rejects. */
export type DeviceAnswer = boolean | Promise<boolean>;

/** A large buffer that the device owns and an allocator divides. */
export interface Slab {
  /** The buffer. */
  readonly buffer: DeviceBuffer;
  /** Its size. */
  readonly byteLength: number;
  /** Whether the device really has the memory. */
  readonly valid: DeviceAnswer;
}

/** One copy within device memory. */
export interface CopyOperation {
  /** Where the bytes are. */
  readonly source: DeviceBuffer;
  /** Offset in `source`, a multiple of 4. */
  readonly sourceOffset: number;
  /** Where they go; not the same buffer as `source`. */
  readonly destination: DeviceBuffer;
  /** Offset in `destination`, a multiple of 4. */
  readonly destinationOffset: number;
  /** How many, a multiple of 4. */
  readonly byteLength: number;
}

/** How copies within device memory are carried out: by a compute shader, or one by one. */
export type CopyPath = "kernel" | "copies";

/** By which path a device carries out copies of one size, and why. */
export interface MeasuredCopyPath {
  /** Mean bytes of a copy, rounded up to a power of 4, from 1 KiB to 256 KiB. */
  readonly bytesPerCopy: number;
  /** The path; on a device that does not take the kernel it is `copies`, without times. */
  readonly path: CopyPath;
  /** Milliseconds of the copies of the trial by the kernel. */
  readonly kernelMs?: number;
  /** Milliseconds of the same copies one by one. */
  readonly copiesMs?: number;
}

/** One object to bring to the host. */
export interface ReadBackRequest {
  /** Where it lies. */
  readonly range: MemoryRange;
  /** How many bytes of room the caller wants behind it, for a trailer. */
  readonly tailBytes: number;
}

/** Objects on the host, until disposed. */
export interface ReadBack extends Disposable {
  /**
   * For each request the pieces of its bytes; what they hold together is `byteLength` bytes of the
   * object and `tailBytes` bytes that the caller may write.
   */
  readonly objects: readonly (readonly Uint8Array<ArrayBuffer>[])[];
  /**
   * Says that nobody knows when it will be disposed: its buffers no longer count against the bound
   * of read-backs, so that others need not wait for them.
   */
  abandon(): void;
}

/** Why a device was lost. */
export interface DeviceLoss {
  /** What the device said. */
  readonly message: string;
}

/** Use of a device, or of what lay in its memory, after the device was lost. */
export class DeviceLostError extends Error {
  /** The name of the class. */
  override readonly name = "DeviceLostError";
}

/**
 * Bytes on a device. Knows nothing of keys or tiers.
 *
 * All lengths and offsets are in bytes and multiples of 4. {@linkcode upload} and
 * {@linkcode copy} return at once and take effect in the order of the calls, before any work that
 * is submitted to the device's queue later.
 */
export interface MemoryDevice extends Disposable {
  /** What kind of memory it is. */
  readonly type: "webgpu" | "host";
  /** The device in words. */
  readonly description: string;
  /** Whether software stands in for a device. */
  readonly isFallback: boolean;
  /** Largest slab that can be created. */
  readonly maxSlabBytes: number;
  /** Whether the device is lost: nothing in its memory can be trusted any more. */
  readonly isLost: boolean;
  /** Resolves when the device is lost; never rejects. */
  readonly lost: Promise<DeviceLoss>;
  /** How the device carries out copies, where there is a choice: what was measured so far. */
  readonly copyPaths?: readonly MeasuredCopyPath[];
  /**
   * Creates a slab. One for which there is no memory is not `valid`.
   *
   * @throws {RangeError} If the size is not a positive multiple of 4 up to `maxSlabBytes`.
   */
  createSlab(byteLength: number): Slab;
  /** Releases a slab. */
  destroySlab(slab: Slab): void;
  /**
   * Copies `pieces`, one after the other, into `range`, which they fill exactly. They may be
   * reused when it returns.
   *
   * @throws {RangeError} If the lengths do not fit or are not multiples of 4.
   */
  upload(range: MemoryRange, pieces: readonly Uint8Array<ArrayBuffer>[]): void;
  /**
   * Copies within device memory, all operations in one submission. Those that depend on each other
   * take effect in their order.
   *
   * @returns Whether the device takes them: some devices say later that a buffer is not their own or
   * was destroyed, and then copy nothing.
   * @throws {RangeError} If an operation is empty, misaligned or out of range.
   * @throws {TypeError} If a buffer is of another kind, mapped, or not made to be copied from or to.
   */
  copy(operations: readonly CopyOperation[]): DeviceAnswer;
  /** How many of the first objects of these sizes, tails included, fit into one read-back. */
  countReadable(sizes: readonly number[]): number;
  /**
   * Brings objects to the host, with a single wait for the device.
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

/** Throws unless the range lies in its buffer, is aligned to 4 and is not empty. */
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

/** Throws unless `pieces` are words that fill `range` exactly. */
export function checkUpload(range: MemoryRange, pieces: readonly Uint8Array[]): void {
  checkRange("Upload range", range);
  let total = 0;
  for (const piece of pieces) {
    // An empty or odd-sized view makes WebGPU implementations fail late, or end the process.
    if (!isWords(piece.byteLength, 4)) {
      throw new RangeError(
        `Upload pieces must be a positive multiple of 4 bytes: received ${piece.byteLength}`,
      );
    }
    total += piece.byteLength;
  }
  if (total !== range.byteLength) {
    throw new RangeError(
      `Upload must fill its range of ${range.byteLength} bytes: received ${total}`,
    );
  }
}

/** Throws unless a device with slabs of at most `maxSlabBytes` can create one of `byteLength`. */
export function checkSlab(byteLength: number, maxSlabBytes: number): void {
  if (!isWords(byteLength, 4) || byteLength > maxSlabBytes) {
    throw new RangeError(
      `Slab must be a positive multiple of 4 up to ${maxSlabBytes} bytes: received ${byteLength}`,
    );
  }
}

function isWords(value: number, least: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value % 4 === 0;
}
