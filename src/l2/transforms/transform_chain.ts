import type { ObjectKey } from "../../keys/object_key.ts";
import { sha256 } from "../../runtime/digest.ts";
import type { AdapterObject } from "../adapter.ts";
import {
  tailBytes,
  TRAILER_BYTES,
  type TrailerFault,
  verifyObject,
  writeTrailer,
} from "../object_trailer.ts";
import { decodeFrameHeader, encodeFrameHeader, FRAME_HEADER_BYTES } from "./frame_header.ts";
import type { Transform } from "./transform.ts";

/** An object that is as it was before, or why that is not to be had. */
export type Decoded =
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly fault?: undefined }
  | { readonly fault: TrailerFault };

/**
 * Transforms, applied in order to what is stored and in reverse to what is loaded. To them the whole
 * object is payload, its seal included. Behind what they made of it stands a seal of its own, whose
 * fingerprint is that of the chain; in front, where the length varies, a header with the length.
 */
export class TransformChain implements Disposable {
  /** 8 bytes that stand for what it takes to undo the transforms. */
  readonly fingerprint: Uint8Array;
  /** Whether the length of an object follows from that before. */
  readonly isFixed: boolean;
  /** Bytes in front of the transformed ones. */
  readonly #headerBytes: number;
  /** Those, and what the transforms add. */
  readonly #addedBytes: number;
  readonly #transforms: readonly Transform[];

  /** At most one of the transforms may be such that the length varies. */
  constructor(transforms: readonly Transform[]) {
    this.#transforms = transforms;
    this.isFixed = transforms.every(({ addedBytes }) => addedBytes !== undefined);
    this.#headerBytes = this.isFixed ? 0 : FRAME_HEADER_BYTES;
    const added = transforms.reduce((sum, { addedBytes = 0 }) => sum + addedBytes, 0);
    this.#addedBytes = this.#headerBytes + added;
    const identity = JSON.stringify(["kvtier transforms 1", ...transforms.map((t) => t.identity)]);
    this.fingerprint = sha256(new TextEncoder().encode(identity)).slice(0, 8);
  }

  /** Bytes that are added to an object at least, unless it becomes smaller. */
  get minAddedBytes(): number {
    return this.#addedBytes + TRAILER_BYTES;
  }

  /** Most bytes that are added to an object, or all of them where the length is fixed. */
  addedBytes(key: ObjectKey): number {
    return this.#addedBytes + tailBytes(key);
  }

  /** Makes of an object what an adapter is to store. */
  async encode({ key, parts }: AdapterObject): Promise<AdapterObject> {
    const context = { key, fingerprint: this.fingerprint };
    let body = parts;
    for (const transform of this.#transforms) body = await transform.encode(body, context);
    const byteLength = this.#headerBytes + body.reduce((sum, part) => sum + part.byteLength, 0);
    const tail = new Uint8Array(tailBytes(key));
    const whole = byteLength + tail.byteLength;
    const header = this.isFixed ? [] : [encodeFrameHeader(whole)];
    const sealed = [...header, ...body, tail];
    writeTrailer(key, { byteLength, fingerprint: this.fingerprint }, sealed);
    return { key, parts: sealed, byteLength: whole };
  }

  /**
   * The inverse of {@linkcode encode}.
   *
   * @param byteLength Bytes of the object as it was.
   * @param buffer What an adapter loaded, perhaps with something behind it if the length varies.
   */
  async decode(
    key: ObjectKey,
    byteLength: number,
    buffer: Uint8Array<ArrayBuffer>,
  ): Promise<Decoded> {
    const whole = this.isFixed ? buffer.byteLength : decodeFrameHeader(buffer);
    // What others put there without a header is theirs.
    if (whole === "foreign") return { fault: "layout" };
    if (whole === "damaged" || whole > buffer.byteLength) return { fault: "length" };
    const end = whole - tailBytes(key);
    if (end < this.#headerBytes) return { fault: "length" };
    const layout = { byteLength: end, fingerprint: this.fingerprint };
    const fault = verifyObject(key, layout, [buffer.subarray(0, whole)]);
    if (fault !== null) return { fault };

    const context = { key, fingerprint: this.fingerprint };
    let bytes = buffer.subarray(this.#headerBytes, end);
    const lengths = this.#lengths(byteLength, bytes.byteLength);
    for (const [i, transform] of [...this.#transforms.entries()].reverse()) {
      const length = lengths[i] ?? -1;
      const plain = length < 0 ? undefined : await transform.decode(bytes, length, context);
      if (plain === undefined) return { fault: "transform" };
      bytes = plain;
    }
    return { bytes };
  }

  /** Releases what the transforms hold. */
  [Symbol.dispose](): void {
    for (const transform of this.#transforms) transform[Symbol.dispose]();
  }

  /** Bytes that each transform was given: known from one side or the other of what varies. */
  #lengths(first: number, last: number): number[] {
    const added = this.#transforms.map(({ addedBytes }) => addedBytes);
    const varying = added.indexOf(undefined);
    const lengths: number[] = [];
    let length = first;
    for (const [i, bytes = 0] of added.entries()) {
      if (i <= varying || varying < 0) lengths[i] = length;
      length += bytes;
    }
    length = last;
    for (let i = added.length - 1; i > varying && varying >= 0; i--) {
      length -= added[i] ?? 0;
      lengths[i] = length;
    }
    return lengths;
  }
}
