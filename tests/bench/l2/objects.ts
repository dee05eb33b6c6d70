import type { ObjectLayout } from "../../../src/keys/kv_layout.ts";
import { ObjectKey } from "../../../src/keys/object_key.ts";
import { TRAILER_BYTES } from "../../../src/adapter/object_trailer.ts";
import { alignedBytes } from "../../../src/memory/aligned_bytes.ts";
import { STAGING_BLOCK_BYTES } from "../../../src/memory/staging_pool.ts";
import { sha256 } from "../../../src/base/digest.ts";

const PATTERN_BYTES = 65_521;

/** Room for one object: its payload, and directly behind it what seals it. */
export interface ObjectRoom<Buffer extends ArrayBufferLike = ArrayBufferLike> {
  /** The payload. */
  readonly payload: Uint8Array<Buffer>;
  /** Payload and seal, as adapters see them. */
  readonly parts: readonly Uint8Array<Buffer>[];
}

/** The buffers of a benchmark, written once and used in every round by every target. */
export interface Buffers {
  /** What they hold. */
  readonly layout: ObjectLayout;
  /** Objects to be stored, each with bytes of its own. */
  readonly sources: readonly ObjectRoom<ArrayBuffer>[];
  /** The same in shared memory, as host memory hands them over. */
  readonly readBack: readonly ObjectRoom[];
  /** Room to load them into: arrays of JavaScript's own. */
  readonly loaded: readonly ObjectRoom<ArrayBuffer>[];
  /** The same in aligned memory, of which the cache's buffers for loads are made. */
  readonly aligned: readonly ObjectRoom[];
}

/** Allocates buffers for `count` objects, and writes to all of them so that they are resident. */
export function allocateBuffers(count: number, objectBytes: number): Buffers {
  const pattern = crypto.getRandomValues(new Uint8Array(PATTERN_BYTES));
  const fingerprint = new Uint8Array(8).fill(objectBytes & 0xff);
  const room = <Buffer extends ArrayBufferLike>(
    index: number,
    object: Uint8Array<Buffer>,
  ): ObjectRoom<Buffer> => {
    const payload = object.subarray(0, objectBytes);
    for (let at = 0; at < objectBytes; at += PATTERN_BYTES) {
      payload.set(pattern.subarray(0, objectBytes - at), at);
    }
    new DataView(payload.buffer, payload.byteOffset).setUint32(0, index);
    return { payload, parts: blocksOf(object) };
  };
  const sealedBytes = objectBytes + TRAILER_BYTES;
  const rooms = <Buffer extends ArrayBufferLike>(
    allocate: (byteLength: number) => Uint8Array<Buffer>,
  ): ObjectRoom<Buffer>[] =>
    Array.from({ length: count }, (_, index) => room(index, allocate(sealedBytes)));
  const plain = (byteLength: number) => new Uint8Array(byteLength);
  return {
    layout: { byteLength: objectBytes, fingerprint },
    sources: rooms(plain),
    readBack: rooms((byteLength) => new Uint8Array(new SharedArrayBuffer(byteLength))),
    loaded: rooms(plain),
    aligned: rooms(alignedBytes),
  };
}

/** An object as it lies in the cache's staging blocks. */
function blocksOf<Buffer extends ArrayBufferLike>(
  object: Uint8Array<Buffer>,
): Uint8Array<Buffer>[] {
  const blocks: Uint8Array<Buffer>[] = [];
  for (let at = 0; at < object.byteLength; at += STAGING_BLOCK_BYTES) {
    blocks.push(object.subarray(at, at + STAGING_BLOCK_BYTES));
  }
  return blocks;
}

/** `count` keys that no other call returns for another `text`. */
export function keysOf(text: string, count: number): ObjectKey[] {
  const encoder = new TextEncoder();
  return Array.from(
    { length: count },
    (_, i) => new ObjectKey({ chunkHash: sha256(encoder.encode(`${text} ${i}`)), model: "bench" }),
  );
}
