import { ObjectKey } from "../../src/adapter/contract.ts";
import { MAX_MODEL_BYTES, MAX_SALT_BYTES } from "../../src/keys/object_key.ts";
import { crc32 } from "../../src/base/checksum.ts";
import type { PoolGeometry } from "./pool_geometry.ts";
import { knownSequence } from "./slot_format.ts";
import type { PooledObject } from "./slot_table.ts";

const MAGIC = new TextEncoder().encode("KVTIER POOL IDX\n");
const VERSION = 1;
const HEADER_BYTES = 56;
/** Bytes in front of the key in an entry. */
const ENTRY_BYTES = 24;
const CHECKSUM_BYTES = 4;

/** Max bytes of an encoded key. */
const MAX_KEY_BYTES = 44 + MAX_MODEL_BYTES + MAX_SALT_BYTES;

/** The objects of a pool. */
export interface PoolIndex {
  /** Objects, least recently used first. */
  readonly objects: readonly PooledObject[];
  /** Greater than the sequence number of any object. */
  readonly nextSequence: number;
}

/** Encodes the index file, which keeps the index after a clean stop. */
export function encodeIndex(
  { objects, nextSequence }: PoolIndex,
  { slots, slotBytes, files }: PoolGeometry,
): Uint8Array<ArrayBuffer> {
  const keys = objects.map(({ key }) => key.toBytes());
  const keyBytes = keys.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const end = HEADER_BYTES + objects.length * ENTRY_BYTES + keyBytes;
  const bytes = new Uint8Array(end + CHECKSUM_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(16, VERSION, true);
  view.setUint32(20, files, true);
  view.setBigUint64(24, BigInt(slots), true);
  view.setBigUint64(32, BigInt(slotBytes), true);
  view.setBigUint64(40, BigInt(nextSequence), true);
  view.setBigUint64(48, BigInt(objects.length), true);
  let at = HEADER_BYTES;
  for (const [i, { slot, byteLength, sequence }] of objects.entries()) {
    const key = keys[i] as Uint8Array;
    view.setUint32(at, slot, true);
    view.setUint32(at + 4, key.byteLength, true);
    view.setBigUint64(at + 8, BigInt(byteLength), true);
    view.setBigUint64(at + 16, BigInt(sequence), true);
    bytes.set(key, at + ENTRY_BYTES);
    at += ENTRY_BYTES + key.byteLength;
  }
  view.setUint32(end, crc32(bytes.subarray(0, end)), true);
  return bytes;
}

/** Bytes of the index header, which {@linkcode maxIndexBytes} needs. */
export const INDEX_HEADER_BYTES = HEADER_BYTES;

/** Max bytes of an index file with this header; 0 if it belongs to another pool. */
export function maxIndexBytes(
  header: Uint8Array,
  { slots, slotBytes, files }: PoolGeometry,
): number {
  if (header.byteLength < HEADER_BYTES || MAGIC.some((byte, i) => header[i] !== byte)) return 0;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const count = view.getBigUint64(48, true);
  const isOfPool = view.getUint32(16, true) === VERSION && view.getUint32(20, true) === files &&
    view.getBigUint64(24, true) === BigInt(slots) &&
    view.getBigUint64(32, true) === BigInt(slotBytes) && count <= BigInt(slots);
  if (!isOfPool) return 0;
  return HEADER_BYTES + Number(count) * (ENTRY_BYTES + MAX_KEY_BYTES) + CHECKSUM_BYTES;
}

/** Decodes an index file; `undefined` if it is invalid or belongs to a pool of another shape. */
export function decodeIndex(bytes: Uint8Array, geometry: PoolGeometry): PoolIndex | undefined {
  const end = bytes.byteLength - CHECKSUM_BYTES;
  if (end < HEADER_BYTES || bytes.byteLength > maxIndexBytes(bytes, geometry)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) return undefined;
  const { slots, slotBytes } = geometry;
  const nextSequence = knownSequence(view.getBigUint64(40, true));
  if (nextSequence === undefined) return undefined;
  const objects: PooledObject[] = [];
  const taken = new Set<number | string>();
  const count = Number(view.getBigUint64(48, true));
  try {
    for (let at = HEADER_BYTES; objects.length < count;) {
      const keyEnd = at + ENTRY_BYTES + view.getUint32(at + 4, true);
      const object = {
        slot: view.getUint32(at, true),
        byteLength: Number(view.getBigUint64(at + 8, true)),
        sequence: Number(view.getBigUint64(at + 16, true)),
        key: ObjectKey.fromBytes(bytes.subarray(at + ENTRY_BYTES, keyEnd)),
      };
      const { slot, key: { id } } = object;
      if (
        slot >= slots || object.byteLength > slotBytes || object.sequence >= nextSequence ||
        taken.has(slot) || taken.has(id)
      ) return undefined;
      taken.add(slot).add(id);
      objects.push(object);
      at = keyEnd;
    }
  } catch {
    // The checksum is right, but another version wrote keys that this one does not support.
    return undefined;
  }
  return { objects, nextSequence };
}
