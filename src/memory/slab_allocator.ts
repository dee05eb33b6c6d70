import {
  type MemoryDevice,
  type MemoryRange,
  RANGE_ALIGNMENT,
  type Slab,
} from "./memory_device.ts";

const MIB = 2 ** 20;
const DEFAULT_SLAB_BYTES = 256 * MIB;
/** After a slab that the device does not have, smaller ones are tried down to this size. */
const LEAST_SLAB_BYTES = 16 * MIB;
/** Sizes between two powers of two fall into 16 classes, so at most 1/16 is searched in vain. */
const SUBCLASS_BITS = 4;
const SUBCLASSES = 1 << SUBCLASS_BITS;
const CLASSES = 32;
/** How many blocks of a request's own class are tried before the next class, where all fit. */
const EXACT_TRIES = 8;
const NONE = -1;

/** A range that an allocator has given out. */
export interface Allocation extends MemoryRange {
  /** The slab it lies in. */
  readonly slab: Slab;
  /** Bytes taken from the slab: `byteLength` rounded up to the alignment. */
  readonly reservedBytes: number;
  /** The allocator's own number of the block. */
  readonly block: number;
}

/** Bounds of a {@linkcode SlabAllocator}. */
export interface SlabAllocatorOptions {
  /** Most bytes in slabs, a multiple of 256. */
  readonly capacityBytes: number;
  /** Size of a slab, unless an object needs a larger one. @default {256 MiB} */
  readonly slabBytes?: number;
  /** Called when the device turns out not to have a slab's memory; frees what lies in it. */
  readonly onSlabFailed?: (slab: Slab) => void;
}

/** Counters of a {@linkcode SlabAllocator}, in bytes. */
export interface SlabAllocatorStats {
  /** Bytes given out. */
  readonly usedBytes: number;
  /** Bytes in slabs. */
  readonly slabBytes: number;
  /** Most bytes that slabs may have. */
  readonly capacityBytes: number;
  /** Largest single range free in a slab. */
  readonly largestFreeBytes: number;
  /** Number of slabs. */
  readonly slabs: number;
  /** Share of the free bytes that lie outside the largest free range, 0 to 1. */
  readonly fragmentation: number;
}

/**
 * Divides slabs of device memory into ranges aligned to 256 bytes. Allocating and freeing take
 * constant time and neighbours that are both free are joined at once: two-level segregated fit
 * (Masmano, Ripoll, Crespo, Real: "TLSF: a new dynamic memory allocator for real-time systems",
 * ECRTS 2004), with block records outside the memory they describe.
 */
export class SlabAllocator implements Disposable {
  /** Most bytes in slabs. */
  readonly capacityBytes: number;
  readonly #device: MemoryDevice;
  #defaultSlabBytes: number;
  readonly #onSlabFailed: (slab: Slab) => void;
  // Each slab with its first block, whose number never changes: it has no neighbour to join.
  readonly #slabs = new Map<Slab, number>();
  readonly #failedSlabs = new WeakSet<Slab>();
  /** Slabs of which the device has not said yet whether it has them; resolves when it has. */
  readonly #unsettled = new Map<Slab, Promise<void>>();
  #growthLimitBytes: number;
  /** The device has no memory for a slab of so many bytes. */
  #impossibleBytes = Infinity;
  #slabBytes = 0;
  #usedBytes = 0;

  // One record a block, in units of the alignment; a slab's blocks are linked in address order.
  readonly #slabOf: (Slab | undefined)[] = [];
  readonly #allocationOf: (Allocation | undefined)[] = [];
  readonly #offset: number[] = [];
  readonly #size: number[] = [];
  readonly #isFree: boolean[] = [];
  readonly #previous: number[] = [];
  readonly #next: number[] = [];
  readonly #previousFree: number[] = [];
  readonly #nextFree: number[] = [];
  readonly #unusedRecords: number[] = [];
  // Which classes have a free block, and the first block of each.
  #classMap = 0;
  readonly #subclassMaps = new Int32Array(CLASSES);
  readonly #firstFree = new Int32Array(CLASSES * SUBCLASSES).fill(NONE);
  // The largest size of each class and how many blocks have it; no block: the size is to be found.
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

  /** Bytes given out. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Bytes that could still be given out, were they in one piece. */
  get unusedBytes(): number {
    return this.#growthLimitBytes - this.#usedBytes;
  }

  /** Largest object that an empty allocator can hold. */
  get maxObjectBytes(): number {
    return Math.min(this.capacityBytes, this.#device.maxSlabBytes);
  }

  /**
   * Resolves when the device has said whether it has the memory of a slab, and what lies in it is
   * freed if not; `undefined` if it has said so already.
   */
  settled(slab: Slab): Promise<void> | undefined {
    return this.#unsettled.get(slab);
  }

  /** Whether there is a slab of which the device has not said yet whether it has the memory. */
  get isUnsettled(): boolean {
    return this.#unsettled.size > 0;
  }

  /**
   * Takes a range of `byteLength` bytes, growing by a slab if none is free.
   *
   * @returns `null` if it does not fit now.
   * @throws {RangeError} If the length is not a positive integer.
   */
  allocate(byteLength: number): Allocation | null {
    if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
      throw new RangeError(`Allocation must be a positive number of bytes: received ${byteLength}`);
    }
    const size = Math.ceil(byteLength / RANGE_ALIGNMENT);
    let block = this.#findFree(size);
    if (block === NONE) block = this.#grow(size);
    if (block === NONE) return null;
    this.#removeFree(block);
    this.#splitTail(block, size);
    this.#isFree[block] = false;
    const reservedBytes = size * RANGE_ALIGNMENT;
    this.#usedBytes += reservedBytes;
    const slab = this.#slabOf[block] as Slab;
    const byteOffset = at(this.#offset, block) * RANGE_ALIGNMENT;
    const { buffer } = slab;
    const allocation = { slab, buffer, byteOffset, byteLength, reservedBytes, block };
    this.#allocationOf[block] = allocation;
    return allocation;
  }

  /**
   * Gives a range back; a slab that holds nothing any more is released, unless it is the last
   * good one.
   *
   * @throws {Error} If the range is not given out by this allocator now.
   */
  free(allocation: Allocation): void {
    const { slab, block } = allocation;
    // Compared as a whole: its block may have been given out again since.
    if (this.#allocationOf[block] !== allocation) {
      throw new Error("Range is not allocated: it was freed before, or by another owner");
    }
    this.#allocationOf[block] = undefined;
    this.#usedBytes -= allocation.reservedBytes;
    const joined = this.#joinNeighbours(block);
    this.#insertFree(joined);
    if (this.#slabs.size > 1 || this.#failedSlabs.has(slab)) this.#releaseIfEmpty(slab);
  }

  /** Counters now. */
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

  /** Releases all slabs; nothing can be allocated afterwards that was given out before. */
  [Symbol.dispose](): void {
    for (const slab of this.#slabs.keys()) this.#device.destroySlab(slab);
    this.#slabs.clear();
    this.#unsettled.clear();
    this.#slabOf.fill(undefined);
    this.#allocationOf.fill(undefined);
    this.#firstFree.fill(NONE);
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
    const first = at(this.#firstFree, index);
    for (let block = first; block !== NONE; block = at(this.#nextFree, block)) {
      this.#noteSize(index, at(this.#size, block));
    }
  }

  #noteSize(index: number, size: number): void {
    const largest = at(this.#largest, index);
    if (size > largest) {
      this.#largest[index] = size;
      this.#largestCount[index] = 1;
    } else if (size === largest) this.#largestCount[index] = at(this.#largestCount, index) + 1;
  }

  #findFree(size: number): number {
    const own = classOf(size);
    let block = this.#firstFree[own] ?? NONE;
    for (let tries = 0; block !== NONE && tries < EXACT_TRIES; tries++) {
      if (at(this.#size, block) >= size) return block;
      block = at(this.#nextFree, block);
    }
    return this.#firstOfClass(own + 1);
  }

  /** A free block of the smallest class from `least` up that has one. */
  #firstOfClass(least: number): number {
    let list = least >>> SUBCLASS_BITS;
    let subclasses = (this.#subclassMaps[list] ?? 0) & (-1 << (least & (SUBCLASSES - 1)));
    if (subclasses === 0) {
      const lists = list + 1 < CLASSES ? this.#classMap & (-1 << (list + 1)) : 0;
      if (lists === 0) return NONE;
      list = lowestBit(lists);
      subclasses = this.#subclassMaps[list] ?? 0;
    }
    return this.#firstFree[(list << SUBCLASS_BITS) + lowestBit(subclasses)] ?? NONE;
  }

  #grow(size: number): number {
    const needed = size * RANGE_ALIGNMENT;
    if (needed > this.#growthLimitBytes - this.#slabBytes) {
      // An empty slab that was kept, but is too small, makes room for one that is not.
      for (const slab of this.#slabs.keys()) this.#releaseIfEmpty(slab);
    }
    for (;;) {
      const room = Math.min(this.#growthLimitBytes - this.#slabBytes, this.#device.maxSlabBytes);
      if (needed > room || needed >= this.#impossibleBytes) return NONE;
      const byteLength = Math.min(room, Math.max(needed, this.#defaultSlabBytes));
      const slab = this.#device.createSlab(byteLength - byteLength % RANGE_ALIGNMENT);
      if (slab.valid !== false) return this.#add(slab);
      this.#device.destroySlab(slab);
      this.#limitGrowth(slab.byteLength, this.#slabBytes);
      this.#onSlabFailed(slab);
    }
  }

  #add(slab: Slab): number {
    const block = this.#newRecord(slab, 0, slab.byteLength / RANGE_ALIGNMENT, NONE, NONE);
    this.#slabs.set(slab, block);
    this.#slabBytes += slab.byteLength;
    this.#insertFree(block);
    if (typeof slab.valid !== "boolean") {
      const settle = (isValid: boolean): void => {
        this.#unsettled.delete(slab);
        if (!isValid && this.#slabs.has(slab)) this.#fail(slab);
      };
      this.#unsettled.set(slab, slab.valid.then(settle, () => settle(false)));
    }
    return block;
  }

  #fail(slab: Slab): void {
    this.#failedSlabs.add(slab);
    this.#limitGrowth(slab.byteLength, this.#slabBytes - slab.byteLength);
    this.#onSlabFailed(slab);
    this.#releaseIfEmpty(slab);
  }

  /** Learns from a slab that the device does not have. */
  #limitGrowth(byteLength: number, bytesInOthers: number): void {
    const half = Math.floor(byteLength / 2);
    // There may be room for less; below that each attempt would cost more than it could give.
    if (half >= LEAST_SLAB_BYTES) {
      this.#impossibleBytes = Math.min(this.#impossibleBytes, byteLength);
      this.#defaultSlabBytes = Math.min(this.#defaultSlabBytes, half - half % RANGE_ALIGNMENT);
    } else this.#growthLimitBytes = bytesInOthers;
  }

  #releaseIfEmpty(slab: Slab): void {
    const block = this.#slabs.get(slab) ?? NONE;
    const isEmpty = this.#isFree[block] === true &&
      at(this.#size, block) * RANGE_ALIGNMENT === slab.byteLength;
    if (!isEmpty) return;
    this.#removeFree(block);
    this.#dropRecord(block);
    this.#slabs.delete(slab);
    this.#unsettled.delete(slab);
    this.#slabBytes -= slab.byteLength;
    this.#device.destroySlab(slab);
  }

  #splitTail(block: number, size: number): void {
    const rest = at(this.#size, block) - size;
    if (rest === 0) return;
    const next = at(this.#next, block);
    const tail = this.#newRecord(
      this.#slabOf[block],
      at(this.#offset, block) + size,
      rest,
      block,
      next,
    );
    if (next !== NONE) this.#previous[next] = tail;
    this.#next[block] = tail;
    this.#size[block] = size;
    this.#insertFree(tail);
  }

  #joinNeighbours(block: number): number {
    const next = at(this.#next, block);
    if (next !== NONE && this.#isFree[next] === true) {
      this.#removeFree(next);
      this.#absorbNext(block);
    }
    const previous = at(this.#previous, block);
    if (previous === NONE || this.#isFree[previous] !== true) return block;
    this.#removeFree(previous);
    this.#absorbNext(previous);
    return previous;
  }

  #absorbNext(block: number): void {
    const absorbed = at(this.#next, block);
    const after = at(this.#next, absorbed);
    this.#size[block] = at(this.#size, block) + at(this.#size, absorbed);
    this.#next[block] = after;
    if (after !== NONE) this.#previous[after] = block;
    this.#dropRecord(absorbed);
  }

  #insertFree(block: number): void {
    const size = at(this.#size, block);
    const index = classOf(size);
    const first = this.#firstFree[index] ?? NONE;
    if (first === NONE) this.#largest[index] = 0;
    if (first === NONE || this.#largestCount[index] !== 0) this.#noteSize(index, size);
    this.#isFree[block] = true;
    this.#previousFree[block] = NONE;
    this.#nextFree[block] = first;
    if (first !== NONE) this.#previousFree[first] = block;
    this.#firstFree[index] = block;
    const list = index >>> SUBCLASS_BITS;
    this.#subclassMaps[list] = (this.#subclassMaps[list] ?? 0) | 1 << (index & (SUBCLASSES - 1));
    this.#classMap |= 1 << list;
  }

  #removeFree(block: number): void {
    const previous = at(this.#previousFree, block);
    const next = at(this.#nextFree, block);
    const size = at(this.#size, block);
    const index = classOf(size);
    if (size === this.#largest[index] && this.#largestCount[index] !== 0) {
      this.#largestCount[index] = at(this.#largestCount, index) - 1;
    }
    if (next !== NONE) this.#previousFree[next] = previous;
    if (previous !== NONE) {
      this.#nextFree[previous] = next;
      return;
    }
    this.#firstFree[index] = next;
    if (next !== NONE) return;
    const list = index >>> SUBCLASS_BITS;
    const subclasses = (this.#subclassMaps[list] ?? 0) & ~(1 << (index & (SUBCLASSES - 1)));
    this.#subclassMaps[list] = subclasses;
    if (subclasses === 0) this.#classMap &= ~(1 << list);
  }

  #newRecord(
    slab: Slab | undefined,
    offset: number,
    size: number,
    previous: number,
    next: number,
  ): number {
    const block = this.#unusedRecords.pop() ?? this.#slabOf.length;
    this.#slabOf[block] = slab;
    this.#offset[block] = offset;
    this.#size[block] = size;
    this.#previous[block] = previous;
    this.#next[block] = next;
    return block;
  }

  #dropRecord(block: number): void {
    this.#slabOf[block] = undefined;
    this.#unusedRecords.push(block);
  }
}

/** Bytes that an object of `byteLength` takes: rounded up to the alignment. */
export function bytesTaken(byteLength: number): number {
  return Math.ceil(byteLength / RANGE_ALIGNMENT) * RANGE_ALIGNMENT;
}

/** Index of the class of a size: 16 classes between two powers of two. */
function classOf(size: number): number {
  if (size < SUBCLASSES) return size;
  const log = 31 - Math.clz32(size);
  const list = log - SUBCLASS_BITS + 1;
  return (list << SUBCLASS_BITS) + (size >>> (log - SUBCLASS_BITS)) - SUBCLASSES;
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

function at(values: ArrayLike<number>, index: number): number {
  return values[index] ?? NONE;
}
