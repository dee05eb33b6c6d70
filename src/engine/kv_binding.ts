import type { KvLayout } from "../keys/kv_layout.ts";
import { checkNumber, numberInWords } from "../runtime/options.ts";
import { checkKvTypes } from "./check_tensors.ts";
import {
  bufferBytes,
  type CopyOperation,
  type DeviceBuffer,
  type MemoryRange,
} from "../memory/memory_device.ts";

/**
 * One layer's K and V, in buffers of the cache's device with `COPY_SRC` and `COPY_DST` usage; a
 * tensor that does not begin where its buffer does is a range of it, at a multiple of 4 bytes.
 */
export interface KvLayer {
  /** The K tensor. */
  readonly key: DeviceBuffer | MemoryRange;
  /** The V tensor. */
  readonly value: DeviceBuffer | MemoryRange;
}

/** In a block table: a block that is no longer there. */
const GONE = -1;

/** All layers' K and V of a sequence, each `[tokens, kvHeads, headDim]` without gaps. */
export type KvTensors = readonly KvLayer[];

/**
 * All layers' K and V of a sequence in blocks: the pages of a pool that sequences share, or one
 * block that is a tensor whose first dimension are the heads. Each tensor is
 * `[blocks, blockTokens, kvHeads, headDim]` (NHD) or `[blocks, kvHeads, blockTokens, headDim]`
 * (HND) without gaps.
 */
export interface KvBlocks {
  /** The tensors. */
  readonly layers: KvTensors;
  /** Tokens for which a block has room. */
  readonly blockTokens: number;
  /**
   * Which blocks hold the sequence, in order. Where only a window is needed, a block that is no
   * longer there is -1. @default {[0]}
   */
  readonly blockTable?: ArrayLike<number>;
  /**
   * Bytes from where a block of K (or V) begins to where the next one does, where something else
   * lies between them; a multiple of 4. @default {blockTokens tokens of K}
   */
  readonly blockStrideBytes?: number;
}

/** KV of a sequence, as an engine holds it. */
export type SequenceKv = KvTensors | KvBlocks;

/** Which tokens of a sequence are copied. */
export interface TokenSpan {
  /** The first one, where a chunk begins. */
  readonly first: number;
  /** The one behind the last. */
  readonly end: number;
}

/**
 * Throws unless the tensors have a place for tokens.
 *
 * @param mayLack Whether blocks may be gone.
 * @throws {TypeError} If something in it is not of the type that it must be.
 * @throws {RangeError} If the number of layers differs, a buffer or the block table is too small,
 * a block is not in the buffers, or its size does not suit GPU copies.
 */
export function checkSequenceKv(
  layout: KvLayout,
  kv: SequenceKv,
  span: TokenSpan,
  mayLack = false,
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
    : neededBytes(layout, blocks, span, mayLack);
  for (const [layer, { key, value }] of layers.entries()) {
    const least = Math.min(rangeOf(key).byteLength, rangeOf(value).byteLength);
    if (least < needed) {
      throw new RangeError(
        `KV tensors of layer ${layer} must have ${needed} bytes for ${span.end} tokens: received ${least}`,
      );
    }
  }
}

/** Bytes that each tensor must have for the blocks of some tokens. */
function neededBytes(
  layout: KvLayout,
  { blockTokens, blockTable, blockStrideBytes }: Required<KvBlocks>,
  { first, end }: TokenSpan,
  mayLack: boolean,
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
    if (mayLack && block === GONE) continue;
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

/** Whether none of the blocks of a chunk is gone. */
export function hasChunk(layout: KvLayout, kv: SequenceKv, chunk: number): boolean {
  if (isPlain(kv)) return true;
  const { blockTokens, blockTable } = blocksOf(layout, kv);
  const blockOf = (token: number): number => Math.floor(token / blockTokens);
  const start = chunk * layout.chunkTokens;
  for (let i = blockOf(start); i <= blockOf(start + layout.chunkTokens - 1); i++) {
    if (blockTable[i] === GONE) return false;
  }
  return true;
}

/** Copies that collect chunk `chunk` of the tensors into one contiguous object. */
export function gatherOperations(
  layout: KvLayout,
  kv: SequenceKv,
  chunk: number,
  object: MemoryRange,
): CopyOperation[] {
  return slices(layout, kv, { chunk, object, tokens: layout.chunkTokens }).map(
    ({ tensor, tensorOffset, objectOffset, byteLength }) => ({
      source: tensor,
      sourceOffset: tensorOffset,
      destination: object.buffer,
      destinationOffset: objectOffset,
      byteLength,
    }),
  );
}

/**
 * Copies that spread an object over chunk `chunk` of the tensors.
 *
 * @param tokens How many tokens of the chunk. Copies are whole words of 4 bytes, so that up to 3
 * bytes of the next token of the chunk may be copied with the last one.
 */
export function scatterOperations(
  layout: KvLayout,
  kv: SequenceKv,
  chunk: number,
  object: MemoryRange,
  tokens: number = layout.chunkTokens,
): CopyOperation[] {
  return slices(layout, kv, { chunk, object, tokens }).map(
    ({ tensor, tensorOffset, objectOffset, byteLength }) => ({
      source: object.buffer,
      sourceOffset: objectOffset,
      destination: tensor,
      destinationOffset: tensorOffset,
      byteLength,
    }),
  );
}

interface Slice {
  readonly tensor: DeviceBuffer;
  readonly tensorOffset: number;
  readonly objectOffset: number;
  readonly byteLength: number;
}

/** Where the first `tokens` tokens of a chunk lie in tensors and object: for each layer K, then V. */
function slices(
  layout: KvLayout,
  kv: SequenceKv,
  { chunk, object, tokens }: { chunk: number; object: MemoryRange; tokens: number },
): Slice[] {
  const { layers, blockTokens, blockTable, blockStrideBytes } = blocksOf(layout, kv);
  const tensors = layers.flatMap(({ key, value }) => [rangeOf(key), rangeOf(value)]);
  const { chunkTokens, tensorBytes } = layout;
  const rows = rowsOf(layout);
  const rowBytes = layout.tokenBytes / rows;
  const slices: Slice[] = [];
  for (let done = 0; done < tokens;) {
    const token = chunk * chunkTokens + done;
    const place = token % blockTokens;
    const count = Math.min(tokens - done, blockTokens - place);
    const block = blockTable[Math.floor(token / blockTokens)] as number;
    for (let row = 0; row < rows; row++) {
      const inTensor = block * blockStrideBytes + (row * blockTokens + place) * rowBytes;
      const objectOffset = object.byteOffset + (row * chunkTokens + done) * rowBytes;
      // Chunks and blocks are whole words: only the end of a part of a chunk may not be.
      const byteLength = wholeWords(count * rowBytes);
      for (const [i, { buffer, byteOffset }] of tensors.entries()) {
        slices.push({
          tensor: buffer,
          tensorOffset: byteOffset + inTensor,
          objectOffset: objectOffset + i * tensorBytes,
          byteLength,
        });
      }
    }
    done += count;
  }
  return slices;
}

function rangeOf(tensor: DeviceBuffer | MemoryRange): MemoryRange {
  if (!(tensor instanceof Uint8Array) && "buffer" in tensor) return tensor;
  return { buffer: tensor, byteOffset: 0, byteLength: bufferBytes(tensor) };
}

function wholeWords(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}

/** How many runs of tokens a block has: one for each head where the heads come first. */
function rowsOf({ order, kvHeads }: KvLayout): number {
  return order === "HND" ? kvHeads : 1;
}

function isPlain(kv: SequenceKv): kv is KvTensors {
  return Array.isArray(kv);
}

/** Any KV as blocks; of plain tensors there is one, whose end does not matter. */
function blocksOf({ order, tokenBytes }: KvLayout, kv: SequenceKv): Required<KvBlocks> {
  if (!isPlain(kv)) {
    return { blockTable: [0], blockStrideBytes: kv.blockTokens * tokenBytes, ...kv };
  }
  if (order === "HND") {
    throw new RangeError(
      "KV of order HND must be given as { layers, blockTokens }, with the tokens for which a " +
        "tensor has room: received the tensors alone",
    );
  }
  const blockTokens = Number.MAX_SAFE_INTEGER;
  return { layers: kv, blockTokens, blockTable: [0], blockStrideBytes: 0 };
}
