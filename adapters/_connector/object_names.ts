import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  type ObjectKey,
  systemRandom,
} from "../../src/adapter/contract.ts";

/** Max length of a name: the limit of most file systems. */
const MAX_NAME_LENGTH = 255;
const SIZE = /^s-([0-9a-f]{64})-([0-9]{1,15})\.size$/;
const PART = /^p-([0-9a-f]{32})-([0-9]+)\.part$/;

/** Content of a parsed name. */
export type NamedThing =
  /**
   * An object; `key` is `undefined` if the name has only a digest and the value contains the key.
   */
  | { readonly type: "object"; readonly key: ObjectKey | undefined }
  | { readonly type: "part"; readonly id: string; readonly index: number }
  /** The size of the object with this key digest. */
  | { readonly type: "size"; readonly digest: string; readonly byteLength: number };

/** Names of objects, parts and side values in a connector. */
export class ConnectorObjectNames {
  readonly prefix: string;

  /**
   * @param prefix Prefix of all names.
   */
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
   * Name of a side value, which tells the size of an object to a listing without reading a value.
   */
  ofSize(digest: string, byteLength: number): string {
    return `${this.prefix}s-${digest}-${byteLength}.size`;
  }

  /** The key digest in the name of an object that has no readable key. */
  digestIn(name: string): string {
    return name.slice(this.prefix.length + "h-".length, -".data".length);
  }

  /** Parses a name; `undefined` if it belongs to something else. */
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

/** A new part id: the time in milliseconds since 1970, followed by random bytes. */
export function newPartId(): string {
  return Date.now().toString(16).padStart(12, "0") + systemRandom.bytes(10).toHex();
}

/** The time in a part id, in milliseconds since 1970. */
export function partsBegunAt(id: string): number {
  return parseInt(id.slice(0, 12), 16);
}
