import { crc32 } from "../base/checksum.ts";
import { verifyAnyLayout } from "../adapter/object_trailer.ts";
import type { AdapterObject } from "../adapter/contract.ts";
import { ObjectKey } from "../keys/object_key.ts";

/** First bytes of an export. */
const MAGIC = new TextEncoder().encode("KVTEXP1\n");
/** Bytes of the front of a record: tag, length of the meta data, length of the body. */
const FRONT_BYTES = 16;
const CHECKSUM_BYTES = 4;
/** Max bytes of meta data. */
const MAX_META_BYTES = 65_536;
/** Max bytes of an object. */
export const MAX_BODY_BYTES = 2 ** 30;
/** Bytes that are read ahead. */
const BUFFER_BYTES = 2 ** 18;
/** Bytes of a body that are read at a time. */
const PART_BYTES = 4 * 2 ** 20;

const TAGS = { head: "HEAD", object: "OBJ ", end: "END " } as const;

type Tag = typeof TAGS[keyof typeof TAGS];

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
const NOTHING: readonly Uint8Array<ArrayBuffer>[] = [];

/** What an export says about itself. */
export interface ExportHead {
  /** The objects that were chosen, in words; the same for all of one export. */
  readonly selection: string;
}

/** Takes the bytes of an export. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>;

/** Reads the next bytes into the start of `target`; resolves to their number, `null` at the end. */
export type ReadBytes = (target: Uint8Array) => Promise<number | null>;

/** Reads ahead, so that small reads cost no system call each. */
export function readingAhead(read: ReadBytes): ReadBytes {
  const buffer = new Uint8Array(BUFFER_BYTES);
  let start = 0;
  let end = 0;
  return async (target) => {
    if (start === end) {
      if (target.byteLength >= BUFFER_BYTES) return await read(target);
      const count = await read(buffer);
      if (count === null) return null;
      [start, end] = [0, count];
    }
    const count = Math.min(target.byteLength, end - start);
    target.set(buffer.subarray(start, start + count));
    start += count;
    return count;
  };
}

/** Where and why an export is not what was written. */
export class ExportFault extends Error {
  override readonly name = "ExportFault";
  /** `truncated`: it ends too early. */
  readonly kind: "not-an-export" | "truncated" | "damaged";
  /** Offset of the faulty record. */
  readonly byteOffset: number;

  constructor(kind: ExportFault["kind"], byteOffset: number, reason: string) {
    super(reason);
    this.kind = kind;
    this.byteOffset = byteOffset;
  }
}

/** Where an export stands between two records. */
export interface ExportPosition {
  readonly byteOffset: number;
  /** Checksum of the last record, from which that of the next one continues. */
  readonly checksum: number;
  readonly objects: number;
  /** Bytes of these objects. */
  readonly objectBytes: number;
}

/**
 * Writes an export: the magic, then records. A record has the front, meta data, a body and a CRC-32
 * that continues from the previous record's, so that records cannot be removed or swapped.
 */
export class ExportWriter {
  #position: ExportPosition;
  readonly #write: WriteBytes;

  /** @param position Where to continue; left out for a new export. */
  constructor(write: WriteBytes, position?: ExportPosition) {
    this.#write = write;
    this.#position = position ?? { byteOffset: 0, checksum: 0, objects: 0, objectBytes: 0 };
  }

  /** Where it stands. */
  get position(): ExportPosition {
    return this.#position;
  }

  /** Writes the magic and the head. */
  async begin(head: ExportHead): Promise<void> {
    await this.#write(MAGIC);
    this.#position = { ...this.#position, byteOffset: MAGIC.byteLength };
    await this.#record(TAGS.head, encoder.encode(JSON.stringify({ version: 1, ...head })), NOTHING);
  }

  /** Writes an object. */
  async add({ key, parts, byteLength }: AdapterObject): Promise<void> {
    await this.#record(TAGS.object, key.toBytes(), parts);
    const { objects, objectBytes } = this.#position;
    const counts = { objects: objects + 1, objectBytes: objectBytes + byteLength };
    this.#position = { ...this.#position, ...counts };
  }

  /** Writes the end. */
  async end(): Promise<void> {
    const { objects, objectBytes } = this.#position;
    await this.#record(TAGS.end, encoder.encode(JSON.stringify({ objects, objectBytes })), NOTHING);
  }

  async #record(tag: Tag, meta: Uint8Array, body: readonly Uint8Array[]): Promise<void> {
    const bodyBytes = body.reduce((sum, part) => sum + part.byteLength, 0);
    const front = new Uint8Array(FRONT_BYTES);
    const view = new DataView(front.buffer);
    front.set(encoder.encode(tag));
    view.setUint32(4, meta.byteLength, true);
    view.setBigUint64(8, BigInt(bodyBytes), true);
    let { checksum, byteOffset } = this.#position;
    for (const part of [front, meta, ...body]) {
      checksum = crc32(part, checksum);
      await this.#write(part);
    }
    const tail = new Uint8Array(CHECKSUM_BYTES);
    new DataView(tail.buffer).setUint32(0, checksum, true);
    await this.#write(tail);
    byteOffset += FRONT_BYTES + meta.byteLength + bodyBytes + CHECKSUM_BYTES;
    this.#position = { ...this.#position, checksum, byteOffset };
  }
}

/** Reads an export and verifies it record by record. */
export class ExportReader {
  readonly #read: ReadBytes;
  #position: ExportPosition = { byteOffset: 0, checksum: 0, objects: 0, objectBytes: 0 };

  constructor(read: ReadBytes) {
    this.#read = readingAhead(read);
  }

  /** End of the last record that was read. */
  get position(): ExportPosition {
    return this.#position;
  }

  /**
   * Reads the magic and the head.
   *
   * @throws {ExportFault} If they are not those of an export that this version reads.
   */
  async begin(): Promise<ExportHead> {
    const magic = await this.#bytes(MAGIC.byteLength);
    if (!MAGIC.every((byte, i) => magic[i] === byte)) {
      throw new ExportFault("not-an-export", 0, "it does not begin like an export");
    }
    this.#position = { ...this.#position, byteOffset: MAGIC.byteLength };
    const { tag, meta } = await this.#record();
    const head = tag === TAGS.head ? parseJson(meta) : undefined;
    if (head?.version !== 1 || typeof head.selection !== "string") {
      throw new ExportFault("not-an-export", 0, "its head is not of version 1");
    }
    return { selection: head.selection };
  }

  /**
   * Reads the objects up to the end, each verified.
   *
   * @throws {ExportFault} If a record is missing, incomplete or not what was written.
   */
  async *objects(): AsyncGenerator<AdapterObject, void> {
    for (;;) {
      const { byteOffset } = this.#position;
      const { tag, meta, body, bodyBytes } = await this.#record();
      if (tag === TAGS.end) return await this.#checkEnd(meta, byteOffset);
      if (tag !== TAGS.object) throw new ExportFault("damaged", byteOffset, "an unknown record");
      const object = { key: parseKey(meta, byteOffset), parts: body, byteLength: bodyBytes };
      const fault = verifyAnyLayout(object.key, bodyBytes, body);
      if (fault !== null) throw new ExportFault("damaged", byteOffset, `its object: ${fault}`);
      const { objects, objectBytes } = this.#position;
      const counts = { objects: objects + 1, objectBytes: objectBytes + bodyBytes };
      this.#position = { ...this.#position, ...counts };
      yield object;
    }
  }

  async #checkEnd(meta: Uint8Array, byteOffset: number): Promise<void> {
    const counts = parseJson(meta);
    const { objects, objectBytes } = this.#position;
    if (counts?.objects !== objects || counts.objectBytes !== objectBytes) {
      throw new ExportFault("damaged", byteOffset, "the end counts other objects");
    }
    if (await this.#read(new Uint8Array(1)) !== null) {
      throw new ExportFault("damaged", this.#position.byteOffset, "bytes follow the end");
    }
  }

  async #record() {
    const { byteOffset, checksum } = this.#position;
    const front = await this.#bytes(FRONT_BYTES);
    const view = new DataView(front.buffer);
    const tag = String.fromCharCode(...front.subarray(0, 4));
    const metaBytes = view.getUint32(4, true);
    const bodyBytes = Number(view.getBigUint64(8, true));
    const isKnown = Object.values<string>(TAGS).includes(tag);
    if (!isKnown || metaBytes > MAX_META_BYTES || bodyBytes > MAX_BODY_BYTES) {
      throw new ExportFault("damaged", byteOffset, "no record begins here");
    }
    const meta = await this.#bytes(metaBytes);
    const body: Uint8Array<ArrayBuffer>[] = [];
    let sum = crc32(meta, crc32(front, checksum));
    // In parts, so that a wrong length does not take memory that no bytes fill.
    for (let left = bodyBytes; left > 0;) {
      const part = await this.#bytes(Math.min(left, PART_BYTES));
      sum = crc32(part, sum);
      body.push(part);
      left -= part.byteLength;
    }
    const tail = await this.#bytes(CHECKSUM_BYTES);
    if (new DataView(tail.buffer).getUint32(0, true) !== sum) {
      throw new ExportFault("damaged", byteOffset, "the checksum of this record does not match");
    }
    const end = byteOffset + FRONT_BYTES + metaBytes + bodyBytes + CHECKSUM_BYTES;
    this.#position = { ...this.#position, byteOffset: end, checksum: sum };
    return { tag, meta, body, bodyBytes };
  }

  async #bytes(count: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count;) {
      const read = await this.#read(bytes.subarray(done));
      if (read === null) {
        throw new ExportFault("truncated", this.#position.byteOffset, "it ends within this record");
      }
      done += read;
    }
    return bytes;
  }
}

function parseKey(meta: Uint8Array, byteOffset: number): ObjectKey {
  try {
    return ObjectKey.fromBytes(meta);
  } catch (error) {
    throw new ExportFault("damaged", byteOffset, `its key: ${(error as Error).message}`);
  }
}

function parseJson(bytes: Uint8Array): Partial<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(decoder.decode(bytes));
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
