import { lengthOfParts } from "../../base/byte_parts.ts";
import type { ObjectKey } from "../../keys/object_key.ts";
import { sha256 } from "../../base/digest.ts";
import type { AdapterObject } from "../../adapter/contract.ts";
import {
  tailBytes,
  TRAILER_BYTES,
  type TrailerFault,
  verifyObject,
  writeTrailer,
} from "../../adapter/object_trailer.ts";
import { decodeFrameHeader, encodeFrameHeader, FRAME_HEADER_BYTES } from "./frame_header.ts";
import type { Transform } from "./transform.ts";

/** A decoded object, or the reason why it cannot be decoded. */
export type Decoded =
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly fault?: undefined }
  | { readonly fault: TrailerFault };

/**
 * Transforms, applied in order before storing and in reverse after loading. They process the whole
 * object, its trailer included. The result gets a trailer of its own, whose fingerprint identifies
 * the chain, and, if the length varies, a header with the total length.
 */
export class TransformChain implements Disposable {
  /** 8 bytes that identify everything needed to decode. */
  readonly fingerprint: Uint8Array;
  /** Whether the encoded length follows from the original length. */
  readonly isFixed: boolean;
  /** Bytes in front of the transformed bytes. */
  readonly #headerBytes: number;
  /** Bytes of the header, and those that the transforms add. */
  readonly #addedBytes: number;
  readonly #transforms: readonly Transform[];

  /**
   * At most one of the transforms may change the length by a varying amount.
   *
   * @param names Names of the transforms, for the status.
   */
  constructor(transforms: readonly Transform[], readonly names: readonly string[] = []) {
    this.#transforms = transforms;
    this.isFixed = transforms.every(({ addedBytes }) => addedBytes !== undefined);
    this.#headerBytes = this.isFixed ? 0 : FRAME_HEADER_BYTES;
    const added = transforms.reduce((sum, { addedBytes = 0 }) => sum + addedBytes, 0);
    this.#addedBytes = this.#headerBytes + added;
    const identity = JSON.stringify(["kvtier transforms 1", ...transforms.map((t) => t.identity)]);
    this.fingerprint = sha256(new TextEncoder().encode(identity)).slice(0, 8);
  }

  /** Minimum bytes added to an object that does not become smaller. */
  get minAddedBytes(): number {
    return this.#addedBytes + TRAILER_BYTES;
  }

  /** Maximum bytes added to an object; the exact number if the length is fixed. */
  addedBytes(key: ObjectKey): number {
    return this.#addedBytes + tailBytes(key);
  }

  async encode({ key, parts }: AdapterObject): Promise<AdapterObject> {
    const context = { key, fingerprint: this.fingerprint };
    let body = parts;
    for (const transform of this.#transforms) body = await transform.encode(body, context);
    const byteLength = this.#headerBytes + lengthOfParts(body);
    const tail = new Uint8Array(tailBytes(key));
    const whole = byteLength + tail.byteLength;
    const header = this.isFixed ? [] : [encodeFrameHeader(whole)];
    const sealed = [...header, ...body, tail];
    writeTrailer(key, { byteLength, fingerprint: this.fingerprint }, sealed);
    return { key, parts: sealed, byteLength: whole };
  }

  /**
   * Reverses {@linkcode encode}.
   *
   * @param byteLength Bytes of the original object.
   * @param buffer Bytes loaded by an adapter; if the length varies, unused space may follow them.
   */
  async decode(
    key: ObjectKey,
    byteLength: number,
    buffer: Uint8Array<ArrayBuffer>,
  ): Promise<Decoded> {
    const whole = this.isFixed ? buffer.byteLength : decodeFrameHeader(buffer);
    // An object without a header was stored by others.
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

  /** Releases the resources of the transforms. */
  [Symbol.dispose](): void {
    for (const transform of this.#transforms) transform[Symbol.dispose]();
  }

  /**
   * Input length of each transform: derived from the original length up to the varying transform,
   * and from the encoded length after it.
   */
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
