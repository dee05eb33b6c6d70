import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  ObjectKey,
} from "../../src/adapter/contract.ts";

/** Metadata header with the key of an object whose name does not spell it. */
export const KEY_HEADER = "x-amz-meta-kvtier-key";

/**
 * Names of objects in a bucket: `<prefix><name>`, where the name begins with the model. The prefix
 * ends with a `/`, which no name contains: objects of `team1/` are not below `team10/` or
 * `team1/b/`.
 */
export class S3ObjectNames {
  /** Prefix of all names: empty, or ending with a `/`. */
  readonly prefix: string;

  /**
   * @param prefix Prefix of all names; a `/` is appended if it is missing.
   */
  constructor(prefix: string) {
    this.prefix = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`;
  }

  nameOf(key: ObjectKey): string {
    return this.prefix + encodeFileName(key);
  }

  /** Headers with the key, for an object whose name does not spell it. */
  headersOf(key: ObjectKey): Readonly<Record<string, string>> {
    return isHashedFileName(encodeFileName(key)) ? { [KEY_HEADER]: key.toBytes().toBase64() } : {};
  }

  /** Prefixes of the names of all objects, or of those that may belong to a model. */
  prefixesOf(model: string | undefined): string[] {
    if (model === undefined) return [this.prefix];
    const hashed = `${this.prefix}h-`;
    const name = encodeFileName(new ObjectKey({ chunkHash: new Uint8Array(32), model }));
    if (isHashedFileName(name)) return [hashed];
    const spelled = `${this.prefix}${name.slice(0, name.indexOf("@") + 1)}`;
    // A spelled name of a model `h-…` has both prefixes.
    return spelled.startsWith(hashed) ? [hashed] : [spelled, hashed];
  }

  /** Whether a name contains a digest, so that the key is in the metadata. */
  isHashed(name: string): boolean {
    return isHashedFileName(name.slice(this.prefix.length));
  }

  /** The key that a name spells; `null` if it spells none. */
  keyIn(name: string): ObjectKey | null {
    return name.startsWith(this.prefix) ? decodeFileName(name.slice(this.prefix.length)) : null;
  }

  /** The key in an object's metadata; `null` if it does not match the name. */
  keyInHeader(name: string, header: string | null): ObjectKey | null {
    if (header === null) return null;
    try {
      const key = ObjectKey.fromBytes(Uint8Array.fromBase64(header));
      return this.nameOf(key) === name ? key : null;
    } catch {
      return null;
    }
  }
}
