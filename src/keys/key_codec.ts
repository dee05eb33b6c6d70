import { ObjectKey } from "./object_key.ts";

/** Longest name that {@linkcode encodeFileName} returns, in bytes: the limit of file systems. */
export const MAX_FILE_NAME_BYTES = 255;

const SUFFIX = ".data";
const encoder = new TextEncoder();
// A leading U+FEFF is part of the string, not a byte order mark.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Bytes of a spelled-out name besides model, group and salt. */
const FIXED_NAME_BYTES = "@0x".length + 8 + "@".length + "@".length + 64 + SUFFIX.length;
const HASHED_NAME = /^h-[0-9a-f]{64}\.data$/;

/**
 * Returns the portable file name of a key: `<model>@0x<rank>@<group>@<hash>[@<salt>].data`, in
 * which all characters of model and salt except `A-Z a-z 0-9 . _ -` are percent-encoded, or
 * `h-<digest>.data` if that is longer than {@linkcode MAX_FILE_NAME_BYTES}. Names are ASCII and
 * unique per key.
 */
export function encodeFileName(key: ObjectKey): string {
  const name = spellName(key, escapeModel(key.model), escapeSalt(key.cacheSalt));
  return name.length <= MAX_FILE_NAME_BYTES ? name : hashedFileName(key);
}

/** The name of a key, with `model` and `salt` as the encoded model and salt. */
export function spellName(key: ObjectKey, model: string, salt: string): string {
  const rank = key.kvRank.toString(16).padStart(8, "0");
  const group = key.objectGroup.toString(16);
  return `${model}@0x${rank}@${group}@${key.chunkHashHex}${salt === "" ? "" : `@${salt}`}${SUFFIX}`;
}

/** The name of a key by its digest. The object must contain the key, which the name cannot give. */
export function hashedFileName(key: ObjectKey): string {
  return `h-${key.digest.toHex()}${SUFFIX}`;
}

/** Whether a name is a digest, so that the key must be read from the object. */
export function isHashedFileName(name: string): boolean {
  return HASHED_NAME.test(name);
}

/** Whether the name of `key` is a digest. Computes only the length of the name. */
export function hasHashedFileName(key: ObjectKey): boolean {
  const groupDigits = Math.max(1, Math.ceil((32 - Math.clz32(key.objectGroup)) / 4));
  const saltLength = key.cacheSalt === "" ? 0 : 1 + escapeSalt(key.cacheSalt).length;
  const nameLength = escapeModel(key.model).length + FIXED_NAME_BYTES + groupDigits + saltLength;
  return nameLength > MAX_FILE_NAME_BYTES;
}

/**
 * Decodes a name that spells out its key.
 *
 * @returns `null` if the name is a digest or not a result of {@linkcode encodeFileName}.
 */
export function decodeFileName(name: string): ObjectKey | null {
  if (name.length > MAX_FILE_NAME_BYTES) return null;
  return parseName(name, unescapeText, encodeFileName);
}

/**
 * Parses a name, decoding model and salt with `decodeField`.
 *
 * @returns `null` if the name has another form, or if `encode` gives the key another name: each key
 * has exactly one.
 */
export function parseName(
  name: string,
  decodeField: (encoded: string, field: "model" | "salt") => string,
  encode: (key: ObjectKey) => string,
): ObjectKey | null {
  if (!name.endsWith(SUFFIX)) return null;
  const [model = "", rank = "", group = "", hash = "", ...salt] = name.slice(0, -SUFFIX.length)
    .split("@");
  if (!/^0x[0-9a-f]{8}$/.test(rank) || !/^[0-9a-f]{1,8}$/.test(group)) return null;
  if (!/^[0-9a-f]{64}$/.test(hash)) return null;
  try {
    const key = new ObjectKey({
      chunkHash: Uint8Array.fromHex(hash),
      model: decodeField(model, "model"),
      kvRank: parseInt(rank, 16),
      objectGroup: parseInt(group, 16),
      cacheSalt: decodeField(salt.join("@"), "salt"),
    });
    return encode(key) === name ? key : null;
  } catch {
    return null;
  }
}

const escapeModel = rememberLast(escapeText);
const escapeSalt = rememberLast(escapeText);

/** Caches the last result: all chunks of a prompt share model and salt. */
function rememberLast(compute: (input: string) => string): (input: string) => string {
  let last: { input: string; result: string } | undefined;
  return (input) => {
    if (last?.input !== input) last = { input, result: compute(input) };
    return last.result;
  };
}

function escapeText(text: string): string {
  let escaped = "";
  for (const byte of encoder.encode(text)) {
    const char = String.fromCharCode(byte);
    const safe = /[A-Za-z0-9_-]/.test(char) || (char === "." && escaped !== "");
    escaped += safe ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return escaped;
}

function unescapeText(text: string): string {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "%") {
      bytes.push(parseInt(text.slice(i + 1, i + 3), 16));
      i += 2;
    } else {
      bytes.push(text.charCodeAt(i));
    }
  }
  return decoder.decode(Uint8Array.from(bytes));
}
