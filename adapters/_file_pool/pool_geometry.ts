import { crc32 } from "../../src/base/checksum.ts";
import { FOOTER_BYTES } from "./slot_format.ts";

/** Alignment of slots and of the objects in them, so that no page is shared. */
export const PAGE_BYTES = 4096;

/** Max slots of a pool, and max files that hold them. */
export const MAX_SLOTS: number = 2 ** 31;
export const MAX_FILES = 1024;

const VERSION = 1;

/** Parameters of the pool's layout. */
export interface PoolShape {
  readonly slots: number;
  /** Max bytes of an object. */
  readonly slotBytes: number;
  /** Number of files over which the slots are distributed. */
  readonly files: number;
}

/** Location of a slot. */
export interface SlotPlace {
  /** Number of the file. */
  readonly file: number;
  /** Offset in the file, in bytes. */
  readonly offset: number;
}

/**
 * Layout of a pool: slots are distributed over the files in turn; each begins with a header page.
 */
export class PoolGeometry implements PoolShape {
  readonly slots: number;
  /** Max bytes of an object. */
  readonly slotBytes: number;
  /** Number of files; at most one per slot. */
  readonly files: number;
  /** Distance between two slots in a file, in bytes. */
  readonly strideBytes: number;

  constructor({ slots, slotBytes, files }: PoolShape) {
    this.slots = slots;
    this.slotBytes = slotBytes;
    this.files = Math.min(files, slots);
    this.strideBytes = PAGE_BYTES + pagesFor(slotBytes + FOOTER_BYTES);
  }

  /** Total bytes of all files. */
  get diskBytes(): number {
    return this.slots * this.strideBytes;
  }

  /** Bytes of one file. */
  fileBytes(file: number): number {
    return Math.ceil((this.slots - file) / this.files) * this.strideBytes;
  }

  placeOf(slot: number): SlotPlace {
    return {
      file: slot % this.files,
      offset: Math.floor(slot / this.files) * this.strideBytes,
    };
  }

  equals({ slots, slotBytes, files }: PoolGeometry): boolean {
    return slots === this.slots && slotBytes === this.slotBytes && files === this.files;
  }

  /** Describes the layout in terms of the configuration keys. */
  toString(): string {
    return `pool_size ${this.slots}, slot_bytes ${this.slotBytes}, files ${this.files}`;
  }

  /** Encodes the file that records the layout. */
  encode(): Uint8Array<ArrayBuffer> {
    const { slots, slotBytes, files } = this;
    const numbers = JSON.stringify({ version: VERSION, slots, slotBytes, files });
    const checksum = crc32(new TextEncoder().encode(numbers)).toString(16);
    return new TextEncoder().encode(`${numbers}\n${checksum}\n`);
  }

  /** Decodes the file of {@linkcode encode}; `undefined` if invalid. */
  static decode(bytes: Uint8Array): PoolGeometry | undefined {
    const [numbers = "", checksum] = new TextDecoder().decode(bytes).split("\n");
    if (crc32(new TextEncoder().encode(numbers)).toString(16) !== checksum) return undefined;
    try {
      const shape: unknown = JSON.parse(numbers);
      return isShape(shape) && shape.version === VERSION ? new PoolGeometry(shape) : undefined;
    } catch {
      // An empty file has the checksum of an empty string, but no JSON.
      return undefined;
    }
  }
}

function isShape(value: unknown): value is PoolShape & { readonly version: unknown } {
  if (typeof value !== "object" || value === null) return false;
  const { slots, slotBytes, files } = value as Partial<Record<string, unknown>>;
  return isCount(slots, MAX_SLOTS) && isCount(files, MAX_FILES) &&
    isCount(slotBytes, Number.MAX_SAFE_INTEGER / Number(slots));
}

function isCount(value: unknown, max: number): boolean {
  return Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= max;
}

/** Rounds up to whole pages. */
export function pagesFor(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
