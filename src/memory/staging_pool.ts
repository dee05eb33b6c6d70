/**
 * Size of staging blocks in bytes. Small reused blocks are several times faster than large ones. The
 * extra 64 KiB hold the trailers of objects whose sizes are powers of two.
 */
export const STAGING_BLOCK_BYTES: number = 4 * 2 ** 20 + 64 * 2 ** 10;

/** Location of a part of an object in a sequence of equal blocks. */
export interface StagedPart {
  /** Index of the block. */
  readonly block: number;
  /** Offset in the block, in bytes. */
  readonly byteOffset: number;
  /** Size of the part, in bytes. */
  readonly byteLength: number;
}

/** Placement of objects in blocks; see {@linkcode packObjects}. */
export interface Packing {
  /** The parts of each object, in order. */
  readonly objects: readonly (readonly StagedPart[])[];
  /** Number of used bytes of each block. */
  readonly usedBytes: readonly number[];
}

/** Alignment of objects in a block: 8 bytes for mapping, rounded up to a cache line. */
const PART_ALIGNMENT = 64;

/**
 * Places objects of the given sizes in blocks. An object that fits into one block is never split. A
 * larger object starts in a new block, and later objects share its last block.
 */
export function packObjects(sizes: readonly number[], blockBytes: number): Packing {
  const usedBytes: number[] = [];
  const objects = sizes.map((size) => {
    const parts: StagedPart[] = [];
    const used = usedBytes.at(-1) ?? blockBytes;
    let offset = Math.ceil(used / PART_ALIGNMENT) * PART_ALIGNMENT;
    if (offset + size > blockBytes) offset = blockBytes;
    for (let left = size; left > 0;) {
      if (offset === blockBytes) {
        usedBytes.push(0);
        offset = 0;
      }
      const byteLength = Math.min(left, blockBytes - offset);
      parts.push({ block: usedBytes.length - 1, byteOffset: offset, byteLength });
      offset += byteLength;
      usedBytes[usedBytes.length - 1] = offset;
      left -= byteLength;
    }
    return parts;
  });
  return { objects, usedBytes };
}

/**
 * Number of leading objects that fit into `capacityBytes` of blocks together.
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
    const offset = Math.ceil(used / PART_ALIGNMENT) * PART_ALIGNMENT;
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

/** Options of a {@linkcode StagingPool}. */
export interface StagingPoolOptions<Block> {
  /** Size of a block, in bytes. */
  readonly blockBytes: number;
  /** Maximum total size of blocks in bytes, both lent and idle. */
  readonly capacityBytes: number;
  /** Creates a block. */
  readonly create: () => Block;
  /** Releases a block. */
  readonly destroy: (block: Block) => void;
}

interface PendingRequest<Block> {
  readonly count: number;
  readonly resolve: (blocks: Block[]) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * A bounded pool of reusable blocks of equal size. Requests that exceed the free blocks wait in FIFO
 * order, so small requests cannot starve a large one.
 */
export class StagingPool<Block> implements Disposable {
  /** Size of a block, in bytes. */
  readonly blockBytes: number;
  /** Maximum total size of blocks, in bytes. */
  readonly capacityBytes: number;
  readonly #options: StagingPoolOptions<Block>;
  readonly #idle: Block[] = [];
  readonly #requests: PendingRequest<Block>[] = [];
  #lent = 0;
  #peak = 0;
  #closedBy: Error | undefined;

  /** @throws {RangeError} If the capacity is smaller than one block. */
  constructor(options: StagingPoolOptions<Block>) {
    if (!(options.capacityBytes >= options.blockBytes)) {
      throw new RangeError(
        `Staging capacity must be at least one block of ${options.blockBytes} bytes: received ${options.capacityBytes}`,
      );
    }
    this.blockBytes = options.blockBytes;
    this.capacityBytes = options.capacityBytes;
    this.#options = options;
  }

  /** Total size of lent blocks, in bytes. */
  get lentBytes(): number {
    return this.#lent * this.blockBytes;
  }

  /** Maximum of {@linkcode lentBytes} so far. */
  get peakBytes(): number {
    return this.#peak * this.blockBytes;
  }

  /** Total size of all blocks, in bytes. */
  get totalBytes(): number {
    return (this.#lent + this.#idle.length) * this.blockBytes;
  }

  /**
   * Lends `count` blocks as soon as that many are free.
   *
   * @throws {RangeError} If that exceeds the capacity of the pool.
   * @throws {Error} The reason with which the pool is closed.
   * @throws Errors from creating a block.
   */
  acquire(count: number): Promise<Block[]> {
    if (this.#closedBy !== undefined) return Promise.reject(this.#closedBy);
    if (count > this.#maxBlocks) {
      const message = `Staging of ${this.capacityBytes} bytes cannot hold ${count} blocks of`;
      return Promise.reject(new RangeError(`${message} ${this.blockBytes}`));
    }
    const { promise, resolve, reject } = Promise.withResolvers<Block[]>();
    this.#requests.push({ count, resolve, reject });
    this.#serve();
    return promise;
  }

  /** Adds an idle block; returns `false`, and destroys it, if there is no room for it. */
  add(block: Block): boolean {
    const hasRoom = this.#closedBy === undefined &&
      this.totalBytes + this.blockBytes <= this.capacityBytes;
    if (hasRoom) this.#idle.unshift(block);
    else this.destroy([block]);
    return hasRoom;
  }

  /** Returns blocks to the pool. */
  release(blocks: readonly Block[]): void {
    this.#lent -= blocks.length;
    if (this.#closedBy !== undefined) {
      this.destroy(blocks);
    } else {
      this.#idle.push(...blocks);
      this.#serve();
    }
  }

  /** Destroys lent blocks instead of returning them. */
  discard(blocks: readonly Block[]): void {
    this.abandon(blocks);
    this.destroy(blocks);
  }

  /** Transfers ownership of blocks to the borrower: they no longer count against the capacity. */
  abandon(blocks: readonly Block[]): void {
    this.#lent -= blocks.length;
    if (this.#closedBy === undefined) this.#serve();
  }

  /** Destroys abandoned blocks. */
  destroy(blocks: readonly Block[]): void {
    for (const block of blocks) this.#options.destroy(block);
  }

  /** Rejects all requests, and destroys idle blocks now and lent blocks when they are returned. */
  close(reason: Error): void {
    this.#closedBy ??= reason;
    this.destroy(this.#idle.splice(0));
    for (const request of this.#requests.splice(0)) request.reject(reason);
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
      const next = this.#requests[0];
      if (next === undefined || next.count > this.#maxBlocks - this.#lent) return;
      this.#requests.shift();
      const blocks = this.#idle.splice(-next.count, next.count);
      try {
        while (blocks.length < next.count) blocks.push(this.#options.create());
      } catch (error) {
        // Out of memory: only this request fails; its blocks remain in the pool.
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
