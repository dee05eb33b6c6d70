import { crc32 } from "../../src/runtime/checksum.ts";
import { FOOTER_BYTES } from "./slot_format.ts";

/** What slots and what stands in them begin at multiples of: a page, so that none is half ours. */
export const PAGE_BYTES = 4096;

/** Most slots of a pool, and most files that they are dealt to. */
export const MOST_SLOTS: number = 2 ** 31;
export const MOST_FILES = 1024;

const VERSION = 1;

/** What the files of a pool are laid out by. */
export interface PoolShape {
  /** Number of slots. */
  readonly slots: number;
  /** Most bytes of an object. */
  readonly slotBytes: number;
  /** Number of files that the slots are dealt to. */
  readonly files: number;
}

/** Where a slot lies. */
export interface SlotPlace {
  /** Number of the file. */
  readonly file: number;
  /** Where it begins in the file. */
  readonly offset: number;
}

/** Where the slots of a pool lie: slot by slot dealt to the files, one page of header in front. */
export class PoolGeometry implements PoolShape {
  /** Number of slots. */
  readonly slots: number;
  /** Most bytes of an object. */
  readonly slotBytes: number;
  /** Number of files; there is none without a slot. */
  readonly files: number;
  /** Bytes from one slot to the next. */
  readonly strideBytes: number;

  /** Computes it from the numbers. */
  constructor({ slots, slotBytes, files }: PoolShape) {
    this.slots = slots;
    this.slotBytes = slotBytes;
    this.files = Math.min(files, slots);
    this.strideBytes = PAGE_BYTES + pagesFor(slotBytes + FOOTER_BYTES);
  }

  /** Bytes of all files together. */
  get diskBytes(): number {
    return this.slots * this.strideBytes;
  }

  /** Bytes of a file. */
  fileBytes(file: number): number {
    return Math.ceil((this.slots - file) / this.files) * this.strideBytes;
  }

  /** Where a slot lies. */
  placeOf(slot: number): SlotPlace {
    return {
      file: slot % this.files,
      offset: Math.floor(slot / this.files) * this.strideBytes,
    };
  }

  /** Whether the numbers are the same. */
  equals({ slots, slotBytes, files }: PoolGeometry): boolean {
    return slots === this.slots && slotBytes === this.slotBytes && files === this.files;
  }

  /** The numbers under the names of the configuration. */
  toString(): string {
    return `pool_size ${this.slots}, slot_bytes ${this.slotBytes}, files ${this.files}`;
  }

  /** The content of the file that says how a pool is laid out. */
  encode(): Uint8Array<ArrayBuffer> {
    const { slots, slotBytes, files } = this;
    const numbers = JSON.stringify({ version: VERSION, slots, slotBytes, files });
    const checksum = crc32(new TextEncoder().encode(numbers)).toString(16);
    return new TextEncoder().encode(`${numbers}\n${checksum}\n`);
  }

  /** What {@linkcode encode} wrote; `undefined` if that is not what the bytes are. */
  static decode(bytes: Uint8Array): PoolGeometry | undefined {
    const [numbers = "", checksum] = new TextDecoder().decode(bytes).split("\n");
    if (crc32(new TextEncoder().encode(numbers)).toString(16) !== checksum) return undefined;
    try {
      const shape: unknown = JSON.parse(numbers);
      return isShape(shape) && shape.version === VERSION ? new PoolGeometry(shape) : undefined;
    } catch {
      // The checksum of nothing fits nothing, too.
      return undefined;
    }
  }
}

function isShape(value: unknown): value is PoolShape & { readonly version: unknown } {
  if (typeof value !== "object" || value === null) return false;
  const { slots, slotBytes, files } = value as Partial<Record<string, unknown>>;
  return isCount(slots, MOST_SLOTS) && isCount(files, MOST_FILES) &&
    isCount(slotBytes, Number.MAX_SAFE_INTEGER / Number(slots));
}

function isCount(value: unknown, most: number): boolean {
  return Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= most;
}

/** Bytes rounded up to whole pages. */
export function pagesFor(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
