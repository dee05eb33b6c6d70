import { ObjectKey } from "./object_key.ts";

/** Longest name that {@linkcode encodeFileName} returns, in bytes; what file systems allow. */
export const MAX_FILE_NAME_BYTES = 255;

const SUFFIX = ".data";
const encoder = new TextEncoder();
// A leading U+FEFF belongs to the text: it is not a byte order mark to be dropped.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** What every spelled name has beside model, group and salt. */
const FIXED_NAME_BYTES = "@0x".length + 8 + "@".length + "@".length + 64 + SUFFIX.length;
const HASHED_NAME = /^h-[0-9a-f]{64}\.data$/;

/**
 * The portable file or wire name of a key: `<model>@0x<rank>@<group>@<hash>[@<salt>].data` with
 * everything but `A-Z a-z 0-9 . _ -` percent-encoded in model and salt, or `h-<digest>.data` where
 * that is longer than {@linkcode MAX_FILE_NAME_BYTES}. ASCII, and different for different keys.
 */
export function encodeFileName(key: ObjectKey): string {
  const name = spellName(key, escapeModel(key.model), escapeSalt(key.cacheSalt));
  return name.length <= MAX_FILE_NAME_BYTES ? name : hashedFileName(key);
}

/** The name of a key whose model and salt are written as `model` and `salt`. */
export function spellName(key: ObjectKey, model: string, salt: string): string {
  const rank = key.kvRank.toString(16).padStart(8, "0");
  const group = key.objectGroup.toString(16);
  return `${model}@0x${rank}@${group}@${key.chunkHashHex}${salt === "" ? "" : `@${salt}`}${SUFFIX}`;
}

/** The name of a key that cannot be spelled: the object itself says which key it is. */
export function hashedFileName(key: ObjectKey): string {
  return `h-${key.digest.toHex()}${SUFFIX}`;
}

/** Whether a name holds a digest, so that the key must be read from the object itself. */
export function isHashedFileName(name: string): boolean {
  return HASHED_NAME.test(name);
}

/** Whether the name of `key` is hashed, so that the object must carry its key. Spells no name. */
export function hasHashedFileName(key: ObjectKey): boolean {
  const groupDigits = Math.max(1, Math.ceil((32 - Math.clz32(key.objectGroup)) / 4));
  const saltLength = key.cacheSalt === "" ? 0 : 1 + escapeSalt(key.cacheSalt).length;
  const nameLength = escapeModel(key.model).length + FIXED_NAME_BYTES + groupDigits + saltLength;
  return nameLength > MAX_FILE_NAME_BYTES;
}

/**
 * The key that a name spells.
 *
 * @returns `null` if the name is none that {@linkcode encodeFileName} makes of a key's fields.
 */
export function decodeFileName(name: string): ObjectKey | null {
  if (name.length > MAX_FILE_NAME_BYTES) return null;
  return parseName(name, unescapeText, encodeFileName);
}

/**
 * The key that a name spells whose model and salt are read by `readText`.
 *
 * @returns `null` if there is none, or if `spell` names it otherwise: one key has one name.
 */
export function parseName(
  name: string,
  readText: (text: string, field: "model" | "salt") => string,
  spell: (key: ObjectKey) => string,
): ObjectKey | null {
  if (!name.endsWith(SUFFIX)) return null;
  const [model = "", rank = "", group = "", hash = "", ...rest] = name.slice(0, -SUFFIX.length)
    .split("@");
  if (!/^0x[0-9a-f]{8}$/.test(rank) || !/^[0-9a-f]{1,8}$/.test(group)) return null;
  if (!/^[0-9a-f]{64}$/.test(hash)) return null;
  try {
    const key = new ObjectKey({
      chunkHash: Uint8Array.fromHex(hash),
      model: readText(model, "model"),
      kvRank: parseInt(rank, 16),
      objectGroup: parseInt(group, 16),
      cacheSalt: readText(rest.join("@"), "salt"),
    });
    return spell(key) === name ? key : null;
  } catch {
    return null;
  }
}

const escapeModel = rememberLast(escapeText);
const escapeSalt = rememberLast(escapeText);

/** Every chunk of a prompt has the same model and salt: escaped once, not once a chunk. */
function rememberLast(compute: (text: string) => string): (text: string) => string {
  let last: { text: string; result: string } | undefined;
  return (text) => {
    if (last?.text !== text) last = { text, result: compute(text) };
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
