import { Buffer } from "node:buffer";
import { isHashedFileName, ObjectKey } from "../../src/l2/adapter.ts";
import { MAX_MODEL_BYTES, MAX_SALT_BYTES } from "../../src/keys/object_key.ts";

/** Bytes of the fields of a head; behind them the key, if the name does not spell it, and bytes. */
export const HEAD_BYTES = 72;
/** Most bytes of a key behind the fields. */
export const MAX_KEY_BYTES: number = 32 + 4 + 4 + 2 + MAX_MODEL_BYTES + 2 + MAX_SALT_BYTES;
/** Most chunks of an object. */
export const MAX_CHUNKS = 65_536;

const FIELDS = /^KVR1([0-9a-f]{8})([0-9a-f]{8})([0-9a-f]{16})([0-9a-f]{4})([0-9a-f]{32})$/;

/**
 * What the value under an object's name begins with. The scripts read the same fields, which is
 * why they are hexadecimal: `KVR1`, chunk count (8 digits), bytes of a chunk (8), bytes of the
 * object (16), bytes of the key (4), generation (32).
 */
export interface ObjectHead {
  /** Number of chunks that have keys of their own. */
  readonly chunkCount: number;
  /** Bytes of each of them, of which the last may have fewer. */
  readonly chunkBytes: number;
  /** Bytes of the object; what is not in chunks stands behind the head. */
  readonly byteLength: number;
  /** Bytes of the key behind the fields. */
  readonly keyLength: number;
  /** Which store wrote the chunks: 32 hexadecimal digits. */
  readonly generation: string;
}

/** The value under an object's name: the head, the key where it has to be carried, and `rest`. */
export function encodeHead(
  head: Omit<ObjectHead, "keyLength">,
  carriedKey: Uint8Array | undefined,
  rest: { readonly byteLength: number; copyTo(target: Uint8Array): void },
): Buffer {
  const { chunkCount, chunkBytes, byteLength, generation } = head;
  const keyLength = carriedKey?.byteLength ?? 0;
  const value = Buffer.allocUnsafe(HEAD_BYTES + keyLength + rest.byteLength);
  const fields = [hex(chunkCount, 8), hex(chunkBytes, 8), hex(byteLength, 16), hex(keyLength, 4)];
  value.write(`KVR1${fields.join("")}${generation}`, "latin1");
  if (carriedKey !== undefined) value.set(carriedKey, HEAD_BYTES);
  rest.copyTo(value.subarray(HEAD_BYTES + keyLength));
  return value;
}

/** The fields that a value begins with; `undefined` if it is no object of this adapter. */
export function decodeHead(value: Buffer): ObjectHead | undefined {
  const fields = FIELDS.exec(value.toString("latin1", 0, HEAD_BYTES));
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

/** The key to carry behind the head of the object called `name`; `undefined` if that spells it. */
export function carriedKeyOf(name: string, key: ObjectKey): Uint8Array | undefined {
  return isHashedFileName(name) ? key.toBytes() : undefined;
}

/** The key behind a head; `undefined` if there is none. */
export function decodeCarriedKey(value: Buffer, { keyLength }: ObjectHead): ObjectKey | undefined {
  try {
    return ObjectKey.fromBytes(value.subarray(HEAD_BYTES, HEAD_BYTES + keyLength));
  } catch {
    return undefined;
  }
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
