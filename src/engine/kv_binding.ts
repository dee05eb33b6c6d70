import type { KvLayout } from "../keys/kv_layout.ts";
import { checkNumber, numberInWords } from "../base/options.ts";
import { checkKvTypes } from "./check_tensors.ts";
import {
  bufferBytes,
  type CopyOperation,
  type DeviceBuffer,
  type MemoryRange,
} from "../memory/memory_device.ts";

/**
 * K and V of one layer, in buffers of the cache's device with `COPY_SRC` and `COPY_DST` usage. A
 * tensor that does not start at offset 0 of its buffer is given as a range, at a multiple of 4
 * bytes.
 */
export interface KvLayer {
  /** The K tensor. */
  readonly key: DeviceBuffer | MemoryRange;
  /** The V tensor. */
  readonly value: DeviceBuffer | MemoryRange;
}

/** Marks a freed block in a block table. */
const FREED = -1;

/** K and V of all layers of a sequence, each `[tokens, kvHeads, headDim]` without gaps. */
export type KvTensors = readonly KvLayer[];

/**
 * K and V of all layers of a sequence in blocks: the pages of a pool shared by sequences, or a
 * single block, for tensors whose first dimension is the heads. Each tensor is
 * `[blocks, blockTokens, kvHeads, headDim]` (NHD) or `[blocks, kvHeads, blockTokens, headDim]`
 * (HND) without gaps.
 */
export interface KvBlocks {
  /** The tensors. */
  readonly layers: KvTensors;
  /** Tokens per block. */
  readonly blockTokens: number;
  /**
   * Indices of the sequence's blocks, in order. In a group with a window, -1 marks a freed block.
   *
   * @default {[0]}
   */
  readonly blockTable?: ArrayLike<number>;
  /**
   * Distance between the starts of consecutive blocks of K (or V), in bytes, if there is other data
   * between them; a multiple of 4.
   *
   * @default {the size of a block}
   */
  readonly blockStrideBytes?: number;
}

/** KV of a sequence, in the form an engine keeps it. */
export type SequenceKv = KvTensors | KvBlocks;

/** Range of tokens to copy. */
export interface TokenSpan {
  /** Index of the first token: the start of a chunk. */
  readonly first: number;
  /** Index after the last token. */
  readonly end: number;
}

/**
 * Throws unless the tensors can hold the tokens of a span.
 *
 * @param allowFreed Whether the block table may contain freed blocks.
 * @throws {TypeError} If a value has the wrong type.
 * @throws {RangeError} If the number of layers differs, a buffer or the block table is too small,
 * a block lies outside the buffers, or its size is not a multiple of 4 bytes.
 */
export function checkSequenceKv(
  layout: KvLayout,
  kv: SequenceKv,
  span: TokenSpan,
  allowFreed = false,
): void {
  checkKvTypes(kv);
  const blocks = blocksOf(layout, kv);
  const { layers } = blocks;
  if (layers.length !== layout.layers) {
    throw new RangeError(
      `KV tensors must have the ${layout.layers} layers of the layout: received ${layers.length}`,
    );
  }
  const needed = isPlain(kv)
    ? wholeWords(span.end * layout.tokenBytes)
    : neededBytes(layout, blocks, span, allowFreed);
  for (const [layer, { key, value }] of layers.entries()) {
    const available = Math.min(rangeOf(key).byteLength, rangeOf(value).byteLength);
    if (available < needed) {
      throw new RangeError(
        `KV tensors of layer ${layer} must have ${needed} bytes for ${span.end} tokens: received ${available}`,
      );
    }
  }
}

/** Minimum size of each tensor, in bytes, for the blocks of a span. */
function neededBytes(
  layout: KvLayout,
  { blockTokens, blockTable, blockStrideBytes }: Required<KvBlocks>,
  { first, end }: TokenSpan,
  allowFreed: boolean,
): number {
  checkNumber("blockTokens", blockTokens, { minimum: 1, multipleOf: 1 });
  const rowBytes = layout.tokenBytes / rowsOf(layout);
  if (blockTokens * rowBytes % 4 !== 0) {
    throw new RangeError(
      `blockTokens must fill a multiple of 4 bytes: received ${blockTokens} of ${rowBytes} bytes`,
    );
  }
  const blockBytes = blockTokens * layout.tokenBytes;
  checkNumber("blockStrideBytes", blockStrideBytes, { minimum: blockBytes, multipleOf: 4 });
  const count = Math.ceil(end / blockTokens);
  if (blockTable.length < count) {
    throw new RangeError(
      `blockTable must have ${count} blocks for ${end} tokens: received ${blockTable.length}`,
    );
  }
  let last = -1;
  for (let i = Math.floor(first / blockTokens); i < count; i++) {
    const block = blockTable[i] as number;
    if (allowFreed && block === FREED) continue;
    if (!Number.isSafeInteger(block) || block < 0) {
      throw new RangeError(
        `blockTable must have integers of at least 0: received ${
          numberInWords(block)
        } at index ${i}`,
      );
    }
    last = Math.max(last, block);
  }
  return last < 0 ? 0 : last * blockStrideBytes + blockBytes;
}

/** Whether none of the blocks of a chunk has been freed. */
export function hasChunk(layout: KvLayout, kv: SequenceKv, chunk: number): boolean {
  if (isPlain(kv)) return true;
  const { blockTokens, blockTable } = blocksOf(layout, kv);
  const blockOf = (token: number): number => Math.floor(token / blockTokens);
  const start = chunk * layout.chunkTokens;
  for (let i = blockOf(start); i <= blockOf(start + layout.chunkTokens - 1); i++) {
    if (blockTable[i] === FREED) return false;
  }
  return true;
}

/**
 * The copies of a chunk: `gather` from the tensors into one contiguous object, `scatter` from the
 * object to the tensors. Per layer K, then V.
 *
 * @param tokens Number of tokens of the chunk to copy. Copies are whole words of 4 bytes, so up to 3
 * bytes of the next token of the chunk may be copied along with the last one.
 */
export function copyOperations(
  direction: "gather" | "scatter",
  layout: KvLayout,
  kv: SequenceKv,
  chunk: number,
  object: MemoryRange,
  tokens: number = layout.chunkTokens,
): CopyOperation[] {
  const { layers, blockTokens, blockTable, blockStrideBytes } = blocksOf(layout, kv);
  const tensors = layers.flatMap(({ key, value }) => [rangeOf(key), rangeOf(value)]);
  const { chunkTokens, tensorBytes } = layout;
  const rows = rowsOf(layout);
  const rowBytes = layout.tokenBytes / rows;
  const operations: CopyOperation[] = [];
  for (let done = 0; done < tokens;) {
    const token = chunk * chunkTokens + done;
    const place = token % blockTokens;
    const count = Math.min(tokens - done, blockTokens - place);
    const block = blockTable[Math.floor(token / blockTokens)] as number;
    for (let row = 0; row < rows; row++) {
      const inTensor = block * blockStrideBytes + (row * blockTokens + place) * rowBytes;
      const inObject = object.byteOffset + (row * chunkTokens + done) * rowBytes;
      // Chunks and blocks are whole words; only the end of a partial chunk may not be.
      const byteLength = wholeWords(count * rowBytes);
      for (const [i, tensor] of tensors.entries()) {
        const tensorOffset = tensor.byteOffset + inTensor;
        const objectOffset = inObject + i * tensorBytes;
        operations.push(
          direction === "gather"
            ? {
              source: tensor.buffer,
              sourceOffset: tensorOffset,
              destination: object.buffer,
              destinationOffset: objectOffset,
              byteLength,
            }
            : {
              source: object.buffer,
              sourceOffset: objectOffset,
              destination: tensor.buffer,
              destinationOffset: tensorOffset,
              byteLength,
            },
        );
      }
    }
    done += count;
  }
  return operations;
}

function rangeOf(tensor: DeviceBuffer | MemoryRange): MemoryRange {
  if (!(tensor instanceof Uint8Array) && "buffer" in tensor) return tensor;
  return { buffer: tensor, byteOffset: 0, byteLength: bufferBytes(tensor) };
}

function wholeWords(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}

/** Number of contiguous token ranges per block: one per head if the heads come first, else 1. */
function rowsOf({ order, kvHeads }: KvLayout): number {
  return order === "HND" ? kvHeads : 1;
}

function isPlain(kv: SequenceKv): kv is KvTensors {
  return Array.isArray(kv);
}

/** Any KV in the form of blocks. Plain tensors become one block of unlimited size. */
function blocksOf({ order, tokenBytes }: KvLayout, kv: SequenceKv): Required<KvBlocks> {
  if (!isPlain(kv)) {
    return { blockTable: [0], blockStrideBytes: kv.blockTokens * tokenBytes, ...kv };
  }
  if (order === "HND") {
    throw new RangeError(
      "KV of order HND must be { layers, blockTokens }, where blockTokens is the number of tokens " +
        "that a tensor can hold: received an array of layers",
    );
  }
  const blockTokens = Number.MAX_SAFE_INTEGER;
  return { layers: kv, blockTokens, blockTable: [0], blockStrideBytes: 0 };
}
