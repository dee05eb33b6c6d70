import { Buffer } from "node:buffer";
import { isHashedFileName, ObjectKey } from "../../src/adapter/contract.ts";
import { MAX_MODEL_BYTES, MAX_SALT_BYTES } from "../../src/keys/object_key.ts";

/**
 * Bytes of the manifest's fields. An embedded key (unless the name spells it) and inline bytes
 * follow.
 */
export const MANIFEST_BYTES = 72;
/** Max bytes of an embedded key. */
export const MAX_KEY_BYTES: number = 32 + 4 + 4 + 2 + MAX_MODEL_BYTES + 2 + MAX_SALT_BYTES;
/** Max chunks of an object. */
export const MAX_CHUNKS = 65_536;

const FIELDS = /^KVR1([0-9a-f]{8})([0-9a-f]{8})([0-9a-f]{16})([0-9a-f]{4})([0-9a-f]{32})$/;

/**
 * Front of the value under an object's name. The scripts parse the same fields, which are therefore
 * hexadecimal: `KVR1`, chunk count (8 digits), bytes of a chunk (8), bytes of the object (16),
 * bytes of the key (4), generation (32).
 */
export interface ObjectManifest {
  /** Number of chunks, each with a server key of its own. */
  readonly chunkCount: number;
  /** Bytes of each chunk; the last one may be shorter. */
  readonly chunkBytes: number;
  /** Bytes of the object. Those not in chunks follow the manifest. */
  readonly byteLength: number;
  /** Bytes of the embedded key. */
  readonly keyLength: number;
  /** Identifies the store that wrote the chunks: 32 hexadecimal digits. */
  readonly generation: string;
}

/** Encodes the value under an object's name: manifest, embedded key if any, and inline bytes. */
export function encodeManifest(
  manifest: Omit<ObjectManifest, "keyLength">,
  embeddedKey: Uint8Array | undefined,
  inline: { readonly byteLength: number; copyTo(target: Uint8Array): void },
): Buffer {
  const { chunkCount, chunkBytes, byteLength, generation } = manifest;
  const keyLength = embeddedKey?.byteLength ?? 0;
  const value = Buffer.allocUnsafe(MANIFEST_BYTES + keyLength + inline.byteLength);
  const fields = [hex(chunkCount, 8), hex(chunkBytes, 8), hex(byteLength, 16), hex(keyLength, 4)];
  value.write(`KVR1${fields.join("")}${generation}`, "latin1");
  if (embeddedKey !== undefined) value.set(embeddedKey, MANIFEST_BYTES);
  inline.copyTo(value.subarray(MANIFEST_BYTES + keyLength));
  return value;
}

/**
 * Decodes the manifest at the front of a value; `undefined` if the value is not of this adapter.
 */
export function decodeManifest(value: Buffer): ObjectManifest | undefined {
  const fields = FIELDS.exec(value.toString("latin1", 0, MANIFEST_BYTES));
  if (fields === null) return undefined;
  const [, chunkCount = "", chunkBytes = "", byteLength = "", keyLength = "", generation = ""] =
    fields;
  return {
    chunkCount: parseInt(chunkCount, 16),
    chunkBytes: parseInt(chunkBytes, 16),
    byteLength: parseInt(byteLength, 16),
    keyLength: parseInt(keyLength, 16),
    generation,
  };
}

/** The key to embed in the value called `name`; `undefined` if the name spells the key. */
export function embeddedKeyOf(name: string, key: ObjectKey): Uint8Array | undefined {
  return isHashedFileName(name) ? key.toBytes() : undefined;
}

/** The embedded key of a value; `undefined` if there is none. */
export function decodeEmbeddedKey(
  value: Buffer,
  { keyLength }: ObjectManifest,
): ObjectKey | undefined {
  try {
    return ObjectKey.fromBytes(value.subarray(MANIFEST_BYTES, MANIFEST_BYTES + keyLength));
  } catch {
    return undefined;
  }
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
