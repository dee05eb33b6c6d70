import { MIB } from "../base/units.ts";
import {
  type MemoryDevice,
  type MemoryRange,
  RANGE_ALIGNMENT,
  type Slab,
} from "./memory_device.ts";

const DEFAULT_SLAB_BYTES = 256 * MIB;
/** When the device cannot allocate a slab, smaller slabs are tried down to this size. */
const MIN_SLAB_BYTES = 16 * MIB;
/** Sizes between two powers of two form 16 classes, so at most 1/16 of a block is wasted. */
const SUBCLASS_BITS = 4;
const SUBCLASSES = 1 << SUBCLASS_BITS;
const CLASSES = 32;
/** Number of blocks tried in a request's own class before taking one of the next, where all fit. */
const EXACT_TRIES = 8;

/** An allocated range. */
export interface Allocation extends MemoryRange {
  /** The slab of the range. */
  readonly slab: Slab;
  /** Bytes taken from the slab: `byteLength` rounded up to the alignment. */
  readonly reservedBytes: number;
  /** The allocator's record of the range. */
  readonly block: Block;
}

/** A range of a slab, free if it has no allocation. Sizes are in units of the alignment. */
class Block {
  allocation: Allocation | undefined = undefined;
  /** Neighbours in address order. */
  previous: Block | undefined = undefined;
  next: Block | undefined = undefined;
  /** Neighbours in the list of free blocks of its class. */
  previousFree: Block | undefined = undefined;
  nextFree: Block | undefined = undefined;
  slab: Slab | undefined;
  offset = 0;
  size = 0;
}

/** A slab in use. */
interface SlabRecord {
  /** Its first block, which is never merged into a predecessor. */
  readonly first: Block;
  /** Whether the device has answered that it has, or cannot have, the memory. */
  state: "unsettled" | "valid" | "failed";
  /** Resolves when it has answered. */
  settled?: Promise<void>;
}

/** Options of a {@linkcode SlabAllocator}. */
export interface SlabAllocatorOptions {
  /** Maximum total size of slabs in bytes, a multiple of 256. */
  readonly capacityBytes: number;
  /** Size of a slab in bytes, unless an object needs a larger one. @default {256 MiB} */
  readonly slabBytes?: number;
  /** Called when the device fails to allocate a slab; must free the ranges in it. */
  readonly onSlabFailed?: (slab: Slab) => void;
}

/** Counters of a {@linkcode SlabAllocator}, in bytes. */
export interface SlabAllocatorStats {
  /** Allocated bytes. */
  readonly usedBytes: number;
  /** Total size of slabs. */
  readonly slabBytes: number;
  /** Maximum total size of slabs. */
  readonly capacityBytes: number;
  /** Size of the largest free range. */
  readonly largestFreeBytes: number;
  /** Number of slabs. */
  readonly slabs: number;
  /** Share of the free bytes outside the largest free range, from 0 to 1. */
  readonly fragmentation: number;
}

/**
 * Allocates ranges of slabs of device memory, aligned to 256 bytes. Allocation and freeing take
 * constant time, and adjacent free blocks are merged immediately. The algorithm is two-level
 * segregated fit (Masmano, Ripoll, Crespo, Real: "TLSF: a new dynamic memory allocator for real-time
 * systems", ECRTS 2004), with block records outside the memory they describe.
 */
export class SlabAllocator implements Disposable {
  /** Maximum total size of slabs, in bytes. */
  readonly capacityBytes: number;
  readonly #device: MemoryDevice;
  #defaultSlabBytes: number;
  readonly #onSlabFailed: (slab: Slab) => void;
  readonly #slabs = new Map<Slab, SlabRecord>();
  #growthLimitBytes: number;
  /** Smallest slab size that the device has failed to allocate. */
  #impossibleBytes = Infinity;
  #slabBytes = 0;
  #usedBytes = 0;

  readonly #unused: Block[] = [];
  // Bit maps of the classes that have a free block, and the first free block of each.
  #classMap = 0;
  readonly #subclassMaps = new Int32Array(CLASSES);
  readonly #firstFree = Array<Block | undefined>(CLASSES * SUBCLASSES).fill(undefined);
  // Largest size in each class and number of blocks of that size; if 0, the size must be recomputed.
  readonly #largest = new Int32Array(CLASSES * SUBCLASSES);
  readonly #largestCount = new Int32Array(CLASSES * SUBCLASSES);

  /** @throws {RangeError} If a size is not a positive multiple of 256 bytes. */
  constructor(device: MemoryDevice, options: SlabAllocatorOptions) {
    const { capacityBytes, slabBytes = DEFAULT_SLAB_BYTES } = options;
    for (const [name, value] of Object.entries({ capacityBytes, slabBytes })) {
      if (!Number.isSafeInteger(value) || value <= 0 || value % RANGE_ALIGNMENT !== 0) {
        throw new RangeError(
          `${name} must be a positive multiple of ${RANGE_ALIGNMENT}: received ${value}`,
        );
      }
    }
    this.#device = device;
    this.capacityBytes = capacityBytes;
    this.#growthLimitBytes = capacityBytes;
    this.#onSlabFailed = options.onSlabFailed ?? (() => {});
    this.#defaultSlabBytes = Math.min(slabBytes, device.maxSlabBytes, capacityBytes);
  }

  /** Allocated bytes. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Bytes that could still be allocated if there were no fragmentation. */
  get unusedBytes(): number {
    return this.#growthLimitBytes - this.#usedBytes;
  }

  /** Largest object that an empty allocator can hold. */
  get maxObjectBytes(): number {
    return Math.min(this.capacityBytes, this.#device.maxSlabBytes);
  }

  /**
   * Resolves when the device has confirmed or failed the allocation of a slab; after a failure its
   * ranges have been freed. `undefined` if that has already happened.
   */
  settled(slab: Slab): Promise<void> | undefined {
    const record = this.#slabs.get(slab);
    return record?.state === "unsettled" ? record.settled : undefined;
  }

  /** Whether the allocation of a slab has not been confirmed. */
  get isUnsettled(): boolean {
    return this.#slabs.values().some(({ state }) => state === "unsettled");
  }

  /**
   * Allocates a range of `byteLength` bytes, adding a slab if no free block fits.
   *
   * @returns `null` if there is not enough space.
   * @throws {RangeError} If the length is not a positive integer.
   */
  allocate(byteLength: number): Allocation | null {
    if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
      throw new RangeError(`Allocation must be a positive number of bytes: received ${byteLength}`);
    }
    const size = Math.ceil(byteLength / RANGE_ALIGNMENT);
    const block = this.#findFree(size) ?? this.#grow(size);
    if (block === undefined) return null;
    this.#removeFree(block);
    this.#splitTail(block, size);
    const reservedBytes = size * RANGE_ALIGNMENT;
    this.#usedBytes += reservedBytes;
    const slab = block.slab as Slab;
    const { buffer } = slab;
    const byteOffset = block.offset * RANGE_ALIGNMENT;
    const allocation = { slab, buffer, byteOffset, byteLength, reservedBytes, block };
    block.allocation = allocation;
    return allocation;
  }

  /**
   * Frees a range. An empty slab is released, unless it is the last working one.
   *
   * @throws {Error} If the range is not currently allocated by this allocator.
   */
  free(allocation: Allocation): void {
    const { slab, block } = allocation;
    // Compared by identity: the block may have been allocated again.
    const record = this.#slabs.get(slab);
    if (block.allocation !== allocation || record === undefined) {
      throw new Error(
        "Range is not allocated: it was freed before, or belongs to another allocator",
      );
    }
    block.allocation = undefined;
    this.#usedBytes -= allocation.reservedBytes;
    this.#insertFree(this.#mergeNeighbours(block));
    if (this.#slabs.size > 1 || record.state === "failed") this.#releaseIfEmpty(slab);
  }

  /** Current counters. */
  stats(): SlabAllocatorStats {
    const largestFreeBytes = this.#largestFree * RANGE_ALIGNMENT;
    const freeBytes = this.#slabBytes - this.#usedBytes;
    return {
      usedBytes: this.#usedBytes,
      slabBytes: this.#slabBytes,
      capacityBytes: this.capacityBytes,
      largestFreeBytes,
      slabs: this.#slabs.size,
      fragmentation: freeBytes === 0 ? 0 : 1 - largestFreeBytes / freeBytes,
    };
  }

  /** Releases all slabs and invalidates all ranges. */
  [Symbol.dispose](): void {
    for (const slab of this.#slabs.keys()) this.#device.destroySlab(slab);
    this.#slabs.clear();
    this.#firstFree.fill(undefined);
    this.#subclassMaps.fill(0);
    this.#classMap = 0;
    this.#slabBytes = 0;
    this.#usedBytes = 0;
  }

  get #largestFree(): number {
    if (this.#classMap === 0) return 0;
    const list = 31 - Math.clz32(this.#classMap);
    const sub = 31 - Math.clz32(this.#subclassMaps[list] ?? 0);
    const index = list * SUBCLASSES + sub;
    if (this.#largestCount[index] === 0) this.#findLargest(index);
    return at(this.#largest, index);
  }

  #findLargest(index: number): void {
    this.#largest[index] = 0;
    for (let block = this.#firstFree[index]; block !== undefined; block = block.nextFree) {
      this.#noteSize(index, block.size);
    }
  }

  #noteSize(index: number, size: number): void {
    const largest = at(this.#largest, index);
    if (size > largest) {
      this.#largest[index] = size;
      this.#largestCount[index] = 1;
    } else if (size === largest) this.#largestCount[index] = at(this.#largestCount, index) + 1;
  }

  #findFree(size: number): Block | undefined {
    const own = classOf(size);
    let block = this.#firstFree[own];
    for (let tries = 0; block !== undefined && tries < EXACT_TRIES; tries++) {
      if (block.size >= size) return block;
      block = block.nextFree;
    }
    return this.#firstOfClass(own + 1);
  }

  /** A free block of the smallest nonempty class from `minClass` up. */
  #firstOfClass(minClass: number): Block | undefined {
    let list = minClass >>> SUBCLASS_BITS;
    let subclasses = (this.#subclassMaps[list] ?? 0) & (-1 << (minClass & (SUBCLASSES - 1)));
    if (subclasses === 0) {
      const lists = list + 1 < CLASSES ? this.#classMap & (-1 << (list + 1)) : 0;
      if (lists === 0) return undefined;
      list = lowestBit(lists);
      subclasses = this.#subclassMaps[list] ?? 0;
    }
    return this.#firstFree[(list << SUBCLASS_BITS) + lowestBit(subclasses)];
  }

  #grow(size: number): Block | undefined {
    const needed = size * RANGE_ALIGNMENT;
    if (needed > this.#growthLimitBytes - this.#slabBytes) {
      // An empty slab that was kept but is too small is replaced.
      for (const slab of this.#slabs.keys()) this.#releaseIfEmpty(slab);
    }
    for (;;) {
      const limit = Math.min(this.#growthLimitBytes - this.#slabBytes, this.#device.maxSlabBytes);
      if (needed > limit || needed >= this.#impossibleBytes) return undefined;
      const byteLength = Math.min(limit, Math.max(needed, this.#defaultSlabBytes));
      const slab = this.#device.createSlab(byteLength - byteLength % RANGE_ALIGNMENT);
      if (slab.valid !== false) return this.#add(slab);
      this.#device.destroySlab(slab);
      this.#limitGrowth(slab.byteLength, this.#slabBytes);
      this.#onSlabFailed(slab);
    }
  }

  #add(slab: Slab): Block {
    const first = this.#newBlock(slab, 0, slab.byteLength / RANGE_ALIGNMENT);
    const record: SlabRecord = { first, state: "valid" };
    this.#slabs.set(slab, record);
    this.#slabBytes += slab.byteLength;
    this.#insertFree(first);
    if (typeof slab.valid !== "boolean") {
      const settle = (isValid: boolean): void => this.#settle(slab, record, isValid);
      record.state = "unsettled";
      record.settled = slab.valid.then(settle, () => settle(false));
    }
    return first;
  }

  #settle(slab: Slab, record: SlabRecord, isValid: boolean): void {
    record.state = isValid ? "valid" : "failed";
    if (isValid || this.#slabs.get(slab) !== record) return;
    this.#limitGrowth(slab.byteLength, this.#slabBytes - slab.byteLength);
    this.#onSlabFailed(slab);
    this.#releaseIfEmpty(slab);
  }

  /** Adjusts the limits after the device failed to allocate a slab. */
  #limitGrowth(byteLength: number, bytesInOthers: number): void {
    const half = Math.floor(byteLength / 2);
    // Smaller slabs may fit; below the minimum an attempt costs more than it could gain.
    if (half >= MIN_SLAB_BYTES) {
      this.#impossibleBytes = Math.min(this.#impossibleBytes, byteLength);
      this.#defaultSlabBytes = Math.min(this.#defaultSlabBytes, half - half % RANGE_ALIGNMENT);
    } else this.#growthLimitBytes = bytesInOthers;
  }

  #releaseIfEmpty(slab: Slab): void {
    const block = this.#slabs.get(slab)?.first;
    if (block === undefined || block.allocation !== undefined) return;
    if (block.size * RANGE_ALIGNMENT !== slab.byteLength) return;
    this.#removeFree(block);
    this.#drop(block);
    this.#slabs.delete(slab);
    this.#slabBytes -= slab.byteLength;
    this.#device.destroySlab(slab);
  }

  #splitTail(block: Block, size: number): void {
    if (block.size === size) return;
    const tail = this.#newBlock(block.slab, block.offset + size, block.size - size);
    tail.previous = block;
    tail.next = block.next;
    if (tail.next !== undefined) tail.next.previous = tail;
    block.next = tail;
    block.size = size;
    this.#insertFree(tail);
  }

  #mergeNeighbours(block: Block): Block {
    const { previous, next } = block;
    if (next !== undefined && next.allocation === undefined) {
      this.#removeFree(next);
      this.#absorbNext(block, next);
    }
    if (previous === undefined || previous.allocation !== undefined) return block;
    this.#removeFree(previous);
    this.#absorbNext(previous, block);
    return previous;
  }

  /** Enlarges a block by the one that follows it. */
  #absorbNext(block: Block, absorbed: Block): void {
    block.size += absorbed.size;
    block.next = absorbed.next;
    if (block.next !== undefined) block.next.previous = block;
    this.#drop(absorbed);
  }

  #insertFree(block: Block): void {
    const index = classOf(block.size);
    const first = this.#firstFree[index];
    if (first === undefined) this.#largest[index] = 0;
    if (first === undefined || this.#largestCount[index] !== 0) this.#noteSize(index, block.size);
    block.previousFree = undefined;
    block.nextFree = first;
    if (first !== undefined) first.previousFree = block;
    this.#firstFree[index] = block;
    const list = index >>> SUBCLASS_BITS;
    this.#subclassMaps[list] = (this.#subclassMaps[list] ?? 0) | 1 << (index & (SUBCLASSES - 1));
    this.#classMap |= 1 << list;
  }

  #removeFree({ previousFree: previous, nextFree: next, size }: Block): void {
    const index = classOf(size);
    if (size === this.#largest[index] && this.#largestCount[index] !== 0) {
      this.#largestCount[index] = at(this.#largestCount, index) - 1;
    }
    if (next !== undefined) next.previousFree = previous;
    if (previous !== undefined) {
      previous.nextFree = next;
      return;
    }
    this.#firstFree[index] = next;
    if (next !== undefined) return;
    const list = index >>> SUBCLASS_BITS;
    const subclasses = (this.#subclassMaps[list] ?? 0) & ~(1 << (index & (SUBCLASSES - 1)));
    this.#subclassMaps[list] = subclasses;
    if (subclasses === 0) this.#classMap &= ~(1 << list);
  }

  #newBlock(slab: Slab | undefined, offset: number, size: number): Block {
    const block = this.#unused.pop() ?? new Block();
    block.slab = slab;
    block.offset = offset;
    block.size = size;
    return block;
  }

  /** Keeps the record of a range that is no block any more for a later one. */
  #drop(block: Block): void {
    block.slab = block.previous = block.next = undefined;
    this.#unused.push(block);
  }
}

/** Bytes that an object of `byteLength` bytes occupies: rounded up to the alignment. */
export function bytesTaken(byteLength: number): number {
  return Math.ceil(byteLength / RANGE_ALIGNMENT) * RANGE_ALIGNMENT;
}

/** Index of the size class, with 16 classes between two powers of two. */
function classOf(size: number): number {
  if (size < SUBCLASSES) return size;
  const log = 31 - Math.clz32(size);
  const list = log - SUBCLASS_BITS + 1;
  return (list << SUBCLASS_BITS) + (size >>> (log - SUBCLASS_BITS)) - SUBCLASSES;
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

function at(values: Int32Array, index: number): number {
  return values[index] ?? 0;
}
