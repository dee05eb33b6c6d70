import type { KvLayout } from "../keys/kv_layout.ts";
import {
  bufferBytes,
  type CopyOperation,
  type DeviceBuffer,
  type MemoryRange,
} from "../memory/memory_device.ts";

/**
 * One layer's K and V of a sequence, as an engine holds them: each `[tokens, kvHeads, headDim]`
 * without gaps, token 0 at byte 0, in buffers of the cache's device with `COPY_SRC` and `COPY_DST`
 * usage.
 */
export interface KvLayer {
  /** The K tensor. */
  readonly key: DeviceBuffer;
  /** The V tensor. */
  readonly value: DeviceBuffer;
}

/** All layers' K and V of a sequence. */
export type KvTensors = readonly KvLayer[];

/**
 * Throws unless the tensors can hold `chunks` chunks.
 *
 * @throws {RangeError} If the number of layers differs, or a buffer is too small.
 */
export function checkKvTensors(layout: KvLayout, kv: KvTensors, chunks: number): void {
  if (kv.length !== layout.layers) {
    throw new RangeError(
      `KV tensors must have the ${layout.layers} layers of the layout: received ${kv.length}`,
    );
  }
  const needed = chunks * layout.tensorBytes;
  for (const [layer, { key, value }] of kv.entries()) {
    const least = Math.min(bufferBytes(key), bufferBytes(value));
    if (least < needed) {
      throw new RangeError(
        `KV tensors of layer ${layer} must have ${needed} bytes for ${
          chunks * layout.chunkTokens
        } tokens: received ${least}`,
      );
    }
  }
}

/** Copies that collect chunk `chunk` of the tensors into one contiguous object. */
export function gatherOperations(
  layout: KvLayout,
  kv: KvTensors,
  chunk: number,
  object: MemoryRange,
): CopyOperation[] {
  return slices(layout, kv, chunk, object).map(({ tensor, tensorOffset, objectOffset }) => ({
    source: tensor,
    sourceOffset: tensorOffset,
    destination: object.buffer,
    destinationOffset: objectOffset,
    byteLength: layout.tensorBytes,
  }));
}

/** Copies that spread an object over chunk `chunk` of the tensors. */
export function scatterOperations(
  layout: KvLayout,
  kv: KvTensors,
  chunk: number,
  object: MemoryRange,
): CopyOperation[] {
  return slices(layout, kv, chunk, object).map(({ tensor, tensorOffset, objectOffset }) => ({
    source: object.buffer,
    sourceOffset: objectOffset,
    destination: tensor,
    destinationOffset: tensorOffset,
    byteLength: layout.tensorBytes,
  }));
}

interface Slice {
  readonly tensor: DeviceBuffer;
  readonly tensorOffset: number;
  readonly objectOffset: number;
}

/** Which part of which tensor stands where in an object: for each layer K, then V. */
function slices(layout: KvLayout, kv: KvTensors, chunk: number, object: MemoryRange): Slice[] {
  const { tensorBytes } = layout;
  return kv.flatMap(({ key, value }, layer) =>
    [key, value].map((tensor, i) => ({
      tensor,
      tensorOffset: chunk * tensorBytes,
      objectOffset: object.byteOffset + (layer * 2 + i) * tensorBytes,
    }))
  );
}
