import { ObjectKey } from "../../src/l2/adapter.ts";
import { crc32 } from "../../src/runtime/checksum.ts";

/** Bytes of a footer. */
export const FOOTER_BYTES = 32;
/** Bytes that name one opening of a pool. */
export const RUN_BYTES = 8;

const HEADER_MAGIC = 0x4850564b; // "KVPH"
const FOOTER_MAGIC = 0x4650564b; // "KVPF"
const VERSION = 1;
/** More stores than there can ever have been; as many more are still safe integers. */
const MOST_STORES = 2n ** 52n;
/** Bytes in front of the key in a header. */
const FIXED_BYTES = 48;

/** What stands in front of an object. */
export interface SlotHeader {
  /** Number of the slot, so that one that was copied elsewhere is not taken for ours. */
  readonly slot: number;
  /** Most bytes of an object in this pool; in a pool of another shape the slot means nothing. */
  readonly slotBytes: number;
  /** Grows from store to store: of two objects with one key, the greater is the newer. */
  readonly sequence: number;
  /** Random bytes of the process that wrote, so that a number used twice still differs. */
  readonly run: Uint8Array;
  /** What the object is called. */
  readonly key: ObjectKey;
  /** Bytes of the object. */
  readonly byteLength: number;
}

/** A header that was read, and what its footer must say. */
export interface ReadHeader extends SlotHeader {
  /** Checksum of the header. */
  readonly checksum: number;
}

/**
 * Writes a header to the front of `page`, with zeros behind it.
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

/** What {@linkcode encodeHeader} wrote; `undefined` if that is not what the bytes are. */
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
    // A later version may allow keys that this one does not know.
    return undefined;
  }
}

/** Writes the footer that belongs to a header to the front of `into`. */
export function encodeFooter(
  into: Uint8Array<ArrayBuffer>,
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

/** Whether a footer is the one that belongs to a header: the store of the object was finished. */
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
 * The place of an object in the order of stores, as a file has it; `undefined` if it is one that no
 * count of stores reaches, and that those to come could not exceed.
 */
export function knownSequence(value: bigint): number | undefined {
  return value <= MOST_STORES ? Number(value) : undefined;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
