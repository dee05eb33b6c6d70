import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import { ObjectKey } from "../../src/keys/object_key.ts";
import { sha256 } from "../../src/base/digest.ts";

/** The key of chunk `n` of an artificial prefix; `fields` replace model or salt. */
export function testKey(n: number, fields: { model?: string; cacheSalt?: string } = {}): ObjectKey {
  const chunkHash = sha256(new TextEncoder().encode(`chunk ${n}`));
  return new ObjectKey({ chunkHash, model: "test/model", ...fields });
}

/** Keys of chunks `0 … count - 1`. */
export function testKeys(count: number, first = 0): ObjectKey[] {
  return Array.from({ length: count }, (_, i) => testKey(first + i));
}

/** A layout of opaque bytes. */
export function testLayout(byteLength: number): ObjectLayout {
  return { byteLength, fingerprint: new Uint8Array(8).fill(byteLength & 0xff) };
}

/** The expected bytes of a key: a function of the key alone, so that any mix-up is detected. */
export function testBytes(key: ObjectKey, byteLength: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(byteLength);
  const seed = new DataView(key.digest.slice().buffer).getUint32(0) | 1;
  let state = seed;
  for (let i = 0; i < byteLength; i++) {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + i | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
