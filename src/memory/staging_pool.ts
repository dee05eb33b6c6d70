/**
 * Size of the blocks that bytes move through: small reused ones are several times faster. Objects
 * whose size is a power of two fill one together with what stands behind each of them.
 */
export const STAGING_BLOCK_BYTES: number = 4 * 2 ** 20 + 64 * 2 ** 10;

/** Where a piece of an object lies in a sequence of equal blocks. */
export interface Piece {
  /** Index of the block. */
  readonly block: number;
  /** Byte offset in the block. */
  readonly byteOffset: number;
  /** Bytes in this piece. */
  readonly byteLength: number;
}

/** How objects share blocks; see {@linkcode packPieces}. */
export interface Packing {
  /** For each object its pieces, in order. */
  readonly objects: readonly (readonly Piece[])[];
  /** For each block, how many of its bytes are used. */
  readonly usedBytes: readonly number[];
}

/** Alignment of objects in a block: what mapping needs (8), rounded to a cache line. */
const PIECE_ALIGNMENT = 64;

/**
 * Lays objects of the given sizes into blocks. One that fits into a block is never divided; a
 * larger one fills blocks of its own, and what remains of its last block serves others.
 */
export function packPieces(sizes: readonly number[], blockBytes: number): Packing {
  const usedBytes: number[] = [];
  const objects = sizes.map((size) => {
    const pieces: Piece[] = [];
    const used = usedBytes.at(-1) ?? blockBytes;
    let offset = Math.ceil(used / PIECE_ALIGNMENT) * PIECE_ALIGNMENT;
    if (offset + size > blockBytes) offset = blockBytes;
    for (let left = size; left > 0;) {
      if (offset === blockBytes) {
        usedBytes.push(0);
        offset = 0;
      }
      const byteLength = Math.min(left, blockBytes - offset);
      pieces.push({ block: usedBytes.length - 1, byteOffset: offset, byteLength });
      offset += byteLength;
      usedBytes[usedBytes.length - 1] = offset;
      left -= byteLength;
    }
    return pieces;
  });
  return { objects, usedBytes };
}

/**
 * How many of the first objects fit into `capacityBytes` of blocks together.
 *
 * @returns At least 1 if the first object fits alone, else 0.
 */
export function countThatFit(
  sizes: readonly number[],
  blockBytes: number,
  capacityBytes: number,
): number {
  const maxBlocks = Math.floor(capacityBytes / blockBytes);
  let blocks = 0;
  let used = blockBytes;
  for (const [count, size] of sizes.entries()) {
    const offset = Math.ceil(used / PIECE_ALIGNMENT) * PIECE_ALIGNMENT;
    if (offset + size <= blockBytes) {
      used = offset + size;
    } else {
      const needed = Math.ceil(size / blockBytes);
      blocks += needed;
      used = size - (needed - 1) * blockBytes;
    }
    if (blocks > maxBlocks) return count;
  }
  return sizes.length;
}

/** How a {@linkcode StagingPool} makes and bounds its blocks. */
export interface StagingPoolOptions<Block> {
  /** Size of a block. */
  readonly blockBytes: number;
  /** Most bytes in blocks at a time, lent or idle. */
  readonly capacityBytes: number;
  /** Makes a block. */
  readonly create: () => Block;
  /** Releases a block. */
  readonly destroy: (block: Block) => void;
}

interface Waiter<Block> {
  readonly count: number;
  readonly resolve: (blocks: Block[]) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Reusable equal blocks, bounded in bytes. Who finds too few waits, first come first served, so
 * that one large request is not passed by small ones for ever.
 */
export class StagingPool<Block> implements Disposable {
  /** Size of a block. */
  readonly blockBytes: number;
  /** Most bytes in blocks at a time. */
  readonly capacityBytes: number;
  readonly #create: () => Block;
  readonly #destroy: (block: Block) => void;
  readonly #idle: Block[] = [];
  readonly #waiters: Waiter<Block>[] = [];
  #lent = 0;
  #peak = 0;
  #closedBy: Error | undefined;

  /** @throws {RangeError} If not even one block fits into the capacity. */
  constructor(options: StagingPoolOptions<Block>) {
    if (!(options.capacityBytes >= options.blockBytes)) {
      throw new RangeError(
        `Staging capacity must be at least one block of ${options.blockBytes} bytes: received ${options.capacityBytes}`,
      );
    }
    this.blockBytes = options.blockBytes;
    this.capacityBytes = options.capacityBytes;
    this.#create = options.create;
    this.#destroy = options.destroy;
  }

  /** Bytes in blocks that are lent out. */
  get lentBytes(): number {
    return this.#lent * this.blockBytes;
  }

  /** Most bytes that were ever lent out at a time. */
  get peakBytes(): number {
    return this.#peak * this.blockBytes;
  }

  /** Bytes in all blocks that exist. */
  get totalBytes(): number {
    return (this.#lent + this.#idle.length) * this.blockBytes;
  }

  /**
   * Lends `count` blocks, as soon as that many are free.
   *
   * @throws {RangeError} If the pool can never have that many.
   * @throws {Error} If the pool is or gets closed: what it was closed with.
   * @throws What creating a block throws.
   */
  acquire(count: number): Promise<Block[]> {
    if (this.#closedBy !== undefined) return Promise.reject(this.#closedBy);
    if (count > this.#maxBlocks) {
      return Promise.reject(
        new RangeError(
          `Staging of ${this.capacityBytes} bytes cannot hold ${count} blocks of ${this.blockBytes}`,
        ),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<Block[]>();
    this.#waiters.push({ count, resolve, reject });
    this.#serve();
    return promise;
  }

  /** Takes blocks back for reuse. */
  release(blocks: readonly Block[]): void {
    this.#lent -= blocks.length;
    if (this.#closedBy !== undefined) {
      for (const block of blocks) this.#destroy(block);
    } else {
      this.#idle.push(...blocks);
      this.#serve();
    }
  }

  /** Takes blocks back that must not be used again. */
  discard(blocks: readonly Block[]): void {
    this.abandon(blocks);
    for (const block of blocks) this.#destroy(block);
  }

  /** Leaves blocks to who has them, for ever: they count no more. */
  abandon(blocks: readonly Block[]): void {
    this.#lent -= blocks.length;
    if (this.#closedBy === undefined) this.#serve();
  }

  /** Rejects who waits or asks, releases idle blocks now and lent ones when they come back. */
  close(reason: Error): void {
    this.#closedBy ??= reason;
    for (const block of this.#idle.splice(0)) this.#destroy(block);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(reason);
  }

  /** Closes the pool. */
  [Symbol.dispose](): void {
    this.close(new Error("Staging pool is disposed: the cache was closed"));
  }

  get #maxBlocks(): number {
    return Math.floor(this.capacityBytes / this.blockBytes);
  }

  #serve(): void {
    for (;;) {
      const next = this.#waiters[0];
      if (next === undefined || next.count > this.#maxBlocks - this.#lent) return;
      this.#waiters.shift();
      const blocks = this.#idle.splice(-next.count, next.count);
      try {
        while (blocks.length < next.count) blocks.push(this.#create());
      } catch (error) {
        // The host refuses the memory: that costs this caller its blocks, and the pool nothing.
        this.#idle.push(...blocks);
        next.reject(error);
        continue;
      }
      this.#lent += next.count;
      this.#peak = Math.max(this.#peak, this.#lent);
      next.resolve(blocks);
    }
  }
}
