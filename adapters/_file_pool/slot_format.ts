import { ObjectKey } from "../../src/adapter/contract.ts";
import { crc32 } from "../../src/base/checksum.ts";

export const FOOTER_BYTES = 32;
/** Bytes of a run id, which identifies one opening of a pool. */
export const RUN_BYTES = 8;

const HEADER_MAGIC = 0x4850564b; // "KVPH"
const FOOTER_MAGIC = 0x4650564b; // "KVPF"
const VERSION = 1;
/** Max plausible sequence number; as many again are still safe integers. */
const MAX_STORES = 2n ** 52n;
/** Bytes in front of the key in a header. */
const FIXED_BYTES = 48;

/** Header in front of an object. */
export interface SlotHeader {
  /** Number of the slot, so that a header copied elsewhere is recognized. */
  readonly slot: number;
  /** Max bytes of an object in this pool; a header of a pool with another shape is ignored. */
  readonly slotBytes: number;
  /** Increases with each store: of two objects with one key, the greater number is newer. */
  readonly sequence: number;
  /** Random run id of the writing process, in case a sequence number is used twice. */
  readonly run: Uint8Array;
  readonly key: ObjectKey;
  /** Bytes of the object. */
  readonly byteLength: number;
}

/** A header that was read from a slot, with the checksum that its footer must repeat. */
export interface ReadHeader extends SlotHeader {
  /** Checksum of the header. */
  readonly checksum: number;
}

/**
 * Writes a header to the front of `page`; fills the remainder with zeros.
 *
 * @returns Its checksum, which the footer repeats.
 */
export function encodeHeader(page: Uint8Array<ArrayBuffer>, header: SlotHeader): number {
  const key = header.key.toBytes();
  const view = viewOf(page);
  page.fill(0);
  view.setUint32(0, HEADER_MAGIC, true);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, key.byteLength, true);
  view.setBigUint64(8, BigInt(header.sequence), true);
  page.set(header.run, 16);
  view.setBigUint64(24, BigInt(header.byteLength), true);
  view.setBigUint64(32, BigInt(header.slotBytes), true);
  view.setUint32(40, header.slot, true);
  page.set(key, FIXED_BYTES);
  const end = FIXED_BYTES + key.byteLength;
  const checksum = crc32(page.subarray(0, end));
  view.setUint32(end, checksum, true);
  return checksum;
}

/** Decodes a header; `undefined` if invalid. */
export function decodeHeader(page: Uint8Array): ReadHeader | undefined {
  const view = viewOf(page);
  if (view.getUint32(0, true) !== HEADER_MAGIC || view.getUint16(4, true) !== VERSION) {
    return undefined;
  }
  const end = FIXED_BYTES + view.getUint16(6, true);
  if (end + 4 > page.byteLength) return undefined;
  const checksum = crc32(page.subarray(0, end));
  if (view.getUint32(end, true) !== checksum) return undefined;
  const sequence = knownSequence(view.getBigUint64(8, true));
  if (sequence === undefined) return undefined;
  try {
    return {
      sequence,
      run: page.slice(16, 16 + RUN_BYTES),
      byteLength: Number(view.getBigUint64(24, true)),
      slotBytes: Number(view.getBigUint64(32, true)),
      slot: view.getUint32(40, true),
      key: ObjectKey.fromBytes(page.subarray(FIXED_BYTES, end)),
      checksum,
    };
  } catch {
    // Another version may have written keys that this one does not support.
    return undefined;
  }
}

/** Writes the footer of a header to the front of `into`. */
export function encodeFooter(
  into: Uint8Array,
  { sequence, run }: SlotHeader,
  headerChecksum: number,
): void {
  const view = viewOf(into);
  view.setUint32(0, FOOTER_MAGIC, true);
  view.setUint32(4, headerChecksum, true);
  view.setBigUint64(8, BigInt(sequence), true);
  into.set(run, 16);
  view.setUint32(24, 0, true);
  view.setUint32(28, crc32(into.subarray(0, 28)), true);
}

/** Whether a footer matches a header, which shows that the store was completed. */
export function isFooterOf(footer: Uint8Array, header: ReadHeader): boolean {
  const view = viewOf(footer);
  return footer.byteLength === FOOTER_BYTES &&
    view.getUint32(0, true) === FOOTER_MAGIC &&
    view.getUint32(28, true) === crc32(footer.subarray(0, 28)) &&
    view.getUint32(4, true) === header.checksum &&
    view.getBigUint64(8, true) === BigInt(header.sequence) &&
    header.run.every((byte, i) => footer[16 + i] === byte);
}

/**
 * Validates a sequence number from a file; `undefined` if it is implausibly large, so that later
 * numbers could not exceed it.
 */
export function knownSequence(value: bigint): number | undefined {
  return value <= MAX_STORES ? Number(value) : undefined;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
