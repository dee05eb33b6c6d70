import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  type ObjectKey,
  systemRandom,
} from "../../src/l2/adapter.ts";

/** Longest name: what file systems allow. */
const MAX_NAME_LENGTH = 255;
const SIZE = /^s-([0-9a-f]{64})-([0-9]{1,15})\.size$/;
const PART = /^p-([0-9a-f]{32})-([0-9]+)\.part$/;

/** What a name says. */
export type NamedThing =
  /** An object; its key stands in its value where the name has only a digest. */
  | { readonly type: "object"; readonly key: ObjectKey | undefined }
  | { readonly type: "part"; readonly id: string; readonly index: number }
  /** The bytes of the object whose key has a digest. */
  | { readonly type: "size"; readonly digest: string; readonly byteLength: number };

/** The names of objects and of their parts in a connector. */
export class ObjectNames {
  /** What all of them begin with. */
  readonly prefix: string;

  /** Names with a prefix. */
  constructor(prefix: string) {
    this.prefix = prefix;
  }

  /** The name of an object. */
  of(key: ObjectKey): string {
    const name = this.prefix + encodeFileName(key);
    return name.length <= MAX_NAME_LENGTH ? name : `${this.prefix}h-${key.digest.toHex()}.data`;
  }

  /** The name of a part. */
  ofPart(id: string, index: number): string {
    return `${this.prefix}p-${id}-${index}.part`;
  }

  /**
   * The name of a small value beside an object, which tells its bytes in a listing: values are not
   * read to learn their sizes.
   */
  ofSize(digest: string, byteLength: number): string {
    return `${this.prefix}s-${digest}-${byteLength}.size`;
  }

  /** The digest of the key of the object with a name, if that has no more. */
  digestIn(name: string): string {
    return name.slice(this.prefix.length + "h-".length, -".data".length);
  }

  /** What a name is, if it is one of these. */
  parse(name: unknown): NamedThing | undefined {
    if (typeof name !== "string" || !name.startsWith(this.prefix)) return undefined;
    const rest = name.slice(this.prefix.length);
    const [, id, index] = PART.exec(rest) ?? [];
    if (id !== undefined) return { type: "part", id, index: Number(index) };
    const [, digest, byteLength] = SIZE.exec(rest) ?? [];
    if (digest !== undefined) return { type: "size", digest, byteLength: Number(byteLength) };
    if (isHashedFileName(rest)) return { type: "object", key: undefined };
    const key = decodeFileName(rest);
    return key === null ? undefined : { type: "object", key };
  }
}

/** A new id for parts: when they were begun, in milliseconds since 1970, and a random number. */
export function newPartId(): string {
  return Date.now().toString(16).padStart(12, "0") + systemRandom.bytes(10).toHex();
}

/** When the parts of an id were begun, in milliseconds since 1970. */
export function partsBegunAt(id: string): number {
  return parseInt(id.slice(0, 12), 16);
}
