import type { ObjectLayout } from "../../../src/keys/kv_layout.ts";
import { ObjectKey } from "../../../src/keys/object_key.ts";
import { TRAILER_BYTES } from "../../../src/l2/object_trailer.ts";
import { sha256 } from "../../../src/runtime/digest.ts";

const PATTERN_BYTES = 65_521;

/** Room for one object: its payload, and directly behind it what seals it. */
export interface ObjectRoom {
  /** The payload. */
  readonly payload: Uint8Array<ArrayBuffer>;
  /** Payload and seal, as adapters see them. */
  readonly parts: readonly Uint8Array<ArrayBuffer>[];
}

/** The buffers of a benchmark, written once and used in every round by every target. */
export interface Buffers {
  /** What they hold. */
  readonly layout: ObjectLayout;
  /** Objects to be stored, each with bytes of its own. */
  readonly sources: readonly ObjectRoom[];
  /** Room to load them into. */
  readonly loaded: readonly ObjectRoom[];
}

/** Allocates buffers for `count` objects, and writes to all of them so that they are resident. */
export function allocateBuffers(count: number, objectBytes: number): Buffers {
  const pattern = crypto.getRandomValues(new Uint8Array(PATTERN_BYTES));
  const fingerprint = new Uint8Array(8).fill(objectBytes & 0xff);
  const room = (index: number): ObjectRoom => {
    const buffer = new ArrayBuffer(objectBytes + TRAILER_BYTES);
    const payload = new Uint8Array(buffer, 0, objectBytes);
    const tail = new Uint8Array(buffer, objectBytes);
    for (let at = 0; at < objectBytes; at += PATTERN_BYTES) {
      payload.set(pattern.subarray(0, objectBytes - at), at);
    }
    new DataView(buffer).setUint32(0, index);
    return { payload, parts: [payload, tail] };
  };
  const indices = Array.from({ length: count }, (_, i) => i);
  return {
    layout: { byteLength: objectBytes, fingerprint },
    sources: indices.map(room),
    loaded: indices.map(room),
  };
}

/** `count` keys that no other call returns for another `text`. */
export function keysOf(text: string, count: number): ObjectKey[] {
  const encoder = new TextEncoder();
  return Array.from(
    { length: count },
    (_, i) => new ObjectKey({ chunkHash: sha256(encoder.encode(`${text} ${i}`)), model: "bench" }),
  );
}
