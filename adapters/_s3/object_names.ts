import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  ObjectKey,
} from "../../src/l2/adapter.ts";

/** The header that carries the key of an object whose name does not spell it. */
export const KEY_HEADER = "x-amz-meta-kvtier-key";

/**
 * What objects are called in a bucket: `<prefix><name>`, where the name begins with the model. The
 * prefix ends with a `/`, which no name has: what lies below `team1/` is neither below `team10/` nor
 * below `team1/b/`.
 */
export class ObjectNames {
  /** What all names begin with: empty, or with a `/` at its end. */
  readonly prefix: string;

  /** Names that begin with `prefix`, behind which a `/` is put if it has none. */
  constructor(prefix: string) {
    this.prefix = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`;
  }

  /** The name of an object. */
  nameOf(key: ObjectKey): string {
    return this.prefix + encodeFileName(key);
  }

  /** The headers that an object needs so that its key can be told. */
  headersOf(key: ObjectKey): Readonly<Record<string, string>> {
    return isHashedFileName(encodeFileName(key)) ? { [KEY_HEADER]: key.toBytes().toBase64() } : {};
  }

  /** What the names of all objects begin with, or of all that may belong to a model. */
  prefixesOf(model: string | undefined): string[] {
    if (model === undefined) return [this.prefix];
    const hashed = `${this.prefix}h-`;
    const name = encodeFileName(new ObjectKey({ chunkHash: new Uint8Array(32), model }));
    if (isHashedFileName(name)) return [hashed];
    const spelled = `${this.prefix}${name.slice(0, name.indexOf("@") + 1)}`;
    // A name of the model `h-…` has both beginnings.
    return spelled.startsWith(hashed) ? [hashed] : [spelled, hashed];
  }

  /** Whether a name holds a digest, so that the key stands in a header. */
  isHashed(name: string): boolean {
    return isHashedFileName(name.slice(this.prefix.length));
  }

  /** The key that a name spells; `null` if it spells none. */
  keyIn(name: string): ObjectKey | null {
    return name.startsWith(this.prefix) ? decodeFileName(name.slice(this.prefix.length)) : null;
  }

  /** The key in the header of an object; `null` if it is not the one of its name. */
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
