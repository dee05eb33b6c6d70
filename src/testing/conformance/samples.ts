import { Buffer } from "node:buffer";
import { ObjectKey, type ObjectKeyFields } from "../../keys/object_key.ts";
import { type AdapterObject, concatParts, fillParts } from "../../adapter/contract.ts";
import { sha256 } from "../../base/digest.ts";

/** A key and the bytes of its object. */
export interface Sample {
  /** The key. */
  readonly key: ObjectKey;
  /** The bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Sizes of parts, mostly unaligned. */
const ODD_SIZES = [1, 3, 64, 1021, 4097, 65_537, 1_000_003];
const GUARD_BYTE = 0xa5;

/** The key of sample `n`, with some of its fields replaced. */
export function sampleKey(n: number, fields: Partial<ObjectKeyFields> = {}): ObjectKey {
  const chunkHash = sha256(new TextEncoder().encode(`sample ${n}`));
  return new ObjectKey({ chunkHash, model: "conformance/model", ...fields });
}

/** Sample `n`, whose key and bytes are unique. */
export function sample(n: number, byteLength = 1024): Sample {
  const key = sampleKey(n);
  return { key, bytes: sampleBytes(n, byteLength) };
}

/** `count` samples, from number `first` on. */
export function samples(count: number, byteLength = 1024, first = 0): Sample[] {
  return Array.from({ length: count }, (_, n) => sample(first + n, byteLength));
}

/** Version `v` of the object of key `n`; the bytes depend on both. */
export function version(n: number, v: number, byteLength: number): Sample {
  return { key: sampleKey(n), bytes: sampleBytes(n * 1000 + v, byteLength) };
}

/** The keys of samples. */
export function keysOf(samples: readonly Sample[]): ObjectKey[] {
  return samples.map(({ key }) => key);
}

/** Pseudo-random bytes determined by `seed` (Marsaglia's xorshift32). */
export function sampleBytes(seed: number, byteLength: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(byteLength / 4));
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, byteLength);
}

/** The sample as an object for `store`: a copy of its bytes, in parts of odd sizes. */
export function objectOf(given: Sample): AdapterObject {
  const object = targetOf(given);
  fillParts(object.parts, given.bytes);
  return object;
}

/** The sample as an object for `store`, in parts that end at `ends`. */
export function objectInParts({ key, bytes }: Sample, ends: readonly number[]): AdapterObject {
  const bounds = [0, ...ends, bytes.byteLength];
  const parts = bounds.slice(1).map((end, i) => bytes.slice(bounds[i], end));
  return { key, parts, byteLength: bytes.byteLength };
}

/**
 * An object for `load` to fill: parts of odd sizes, each surrounded by guard bytes that must not be
 * written; see {@linkcode areGuardsIntact}.
 */
export function loadTarget(key: ObjectKey, byteLength: number): AdapterObject {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let left = byteLength;
  while (left > 0) {
    const size = Math.min(left, ODD_SIZES[parts.length % ODD_SIZES.length] ?? left);
    const buffer = new Uint8Array(size + 16).fill(GUARD_BYTE);
    parts.push(buffer.subarray(8, 8 + size).fill(0));
    left -= size;
  }
  return { key, parts, byteLength };
}

/** An object for `load` to fill with the bytes of a sample. */
export function targetOf({ key, bytes }: Sample): AdapterObject {
  return loadTarget(key, bytes.byteLength);
}

/** Whether the guard bytes of an object from {@linkcode loadTarget} are unchanged. */
export function areGuardsIntact({ parts }: AdapterObject): boolean {
  return parts.every(({ buffer, byteOffset, byteLength }) => {
    const all = new Uint8Array(buffer);
    const around = [...all.subarray(0, byteOffset), ...all.subarray(byteOffset + byteLength)];
    return around.length === 16 && around.every((byte) => byte === GUARD_BYTE);
  });
}

/** The bytes of an object, in one new array. */
export function bytesOf({ parts }: AdapterObject): Uint8Array<ArrayBuffer> {
  return concatParts(parts);
}

/** Whether two arrays have the same bytes. Much faster than `assertEquals`. */
export function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Whether the parts of a loaded object have the bytes of its sample. */
export function isFilled(target: AdapterObject | undefined, given: Sample | undefined): boolean {
  return target !== undefined && given !== undefined && areEqual(bytesOf(target), given.bytes);
}
