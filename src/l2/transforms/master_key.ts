import { readSecretFile, readSecretVariable, unmetVariableName } from "../../base/secrets.ts";
import type { ConfigValues } from "../../adapter/config.ts";
import { unmetPath } from "../../adapter/host_path.ts";
import type { RefuseValue } from "./transform.ts";

/** Size of a master key in bytes. */
const KEY_BYTES = 32;
/** Maximum number of derived keys to keep. */
const MAX_KEYS = 256;

const encoder = new TextEncoder();
const HKDF_SALT = encoder.encode("kvtier aesgcm 1");
/** Placeholder in messages for a value that may be the key. */
const HIDDEN = "something else";
const SHAPES = "32 random bytes, as hex or base64";

/** Configuration keys for the source of a master key. */
export const masterKeyFields = {
  master_key_path: {
    type: "string",
    help:
      "File with the master key: 32 bytes, raw or as hex or base64. Only its owner may be able to read it.",
  },
  master_key_env: {
    type: "string",
    help: "Environment variable with the 32 bytes of the master key as hex or base64.",
  },
  key_provider: {
    type: "string",
    oneOf: ["hkdf"],
    default: "hkdf",
    help: "How the key of a cache salt is derived from the master key: HKDF-SHA256.",
  },
} as const;

/** Reads a master key. Its bytes never appear in a message. */
export async function readMasterKey(
  values: Pick<ConfigValues<typeof masterKeyFields>, "master_key_path" | "master_key_env">,
  refuse: RefuseValue,
): Promise<Uint8Array<ArrayBuffer>> {
  const { master_key_path: path, master_key_env: name } = values;
  if (path !== undefined && name === undefined) return await keyInFile(path, refuse);
  if (path === undefined && name !== undefined) return await keyInVariable(name, refuse);
  const expected = "exactly one of master_key_path and master_key_env";
  return refuse("master_key_path", expected, path === undefined ? "none" : "both");
}

async function keyInFile(path: string, refuse: RefuseValue): Promise<Uint8Array<ArrayBuffer>> {
  const key = "master_key_path";
  const unmet = unmetPath(path);
  if (unmet !== undefined) refuse(key, unmet, "another path");
  const expected = `a file that only its owner can read, with ${SHAPES}`;
  if (isKey(path)) refuse(key, expected, HIDDEN);
  const reading = await readSecretFile(path);
  if (reading.problem !== undefined) return refuse(key, expected, `${path}: ${reading.problem}`);
  const found = `${path}: contains something else (${reading.bytes.byteLength} bytes)`;
  return decodeKey(reading.bytes, true) ?? refuse(key, expected, found);
}

async function keyInVariable(name: string, refuse: RefuseValue): Promise<Uint8Array<ArrayBuffer>> {
  const key = "master_key_env";
  const expected = `the name of a variable that is set, with ${SHAPES}`;
  // A value that is not a valid variable name may be the secret itself.
  if (isKey(name) || unmetVariableName(name) !== undefined) refuse(key, expected, HIDDEN);
  const { value, problem } = await readSecretVariable(name);
  if (problem !== undefined) return refuse(key, `${problem}, with ${SHAPES}`, HIDDEN);
  const bytes = encoder.encode(value);
  const held = `${expected} (it contains ${bytes.byteLength} bytes of something else)`;
  return decodeKey(bytes, false) ?? refuse(key, held, HIDDEN);
}

function isKey(place: string): boolean {
  return decodeKey(encoder.encode(place), false) !== undefined;
}

/** Master key from which the keys of cache salts are derived. */
export class MasterKey {
  /** Identifies the key without revealing anything else about it: 16 hexadecimal digits. */
  readonly id: string;
  readonly #key: CryptoKey;
  readonly #derived = new Map<string, Promise<CryptoKey>>();

  private constructor(key: CryptoKey, id: string) {
    this.#key = key;
    this.id = id;
  }

  /** Imports a key of 32 bytes and wipes the array. */
  static async import(bytes: Uint8Array<ArrayBuffer>): Promise<MasterKey> {
    const key = await crypto.subtle.importKey("raw", bytes, "HKDF", false, [
      "deriveKey",
      "deriveBits",
    ]);
    bytes.fill(0);
    const id = await crypto.subtle.deriveBits(hkdf("id"), key, 64);
    return new MasterKey(key, new Uint8Array(id).toHex());
  }

  /** Derives the key for objects under a cache salt. */
  keyFor(cacheSalt: string): Promise<CryptoKey> {
    const known = this.#derived.get(cacheSalt);
    if (known !== undefined) return known;
    const aes = { name: "AES-GCM", length: 8 * KEY_BYTES };
    const params = hkdf(`salt ${cacheSalt}`);
    const key = crypto.subtle.deriveKey(params, this.#key, aes, false, ["encrypt", "decrypt"]);
    const [oldest] = this.#derived.keys();
    if (this.#derived.size === MAX_KEYS && oldest !== undefined) this.#derived.delete(oldest);
    this.#derived.set(cacheSalt, key);
    return key;
  }
}

function hkdf(info: string): HkdfParams {
  return { name: "HKDF", hash: "SHA-256", salt: HKDF_SALT, info: encoder.encode(info) };
}

function decodeKey(
  bytes: Uint8Array<ArrayBuffer>,
  allowsRaw: boolean,
): Uint8Array<ArrayBuffer> | undefined {
  const text = new TextDecoder("latin1").decode(bytes).trim();
  const isText = /^[\w+/=-]*$/.test(text);
  // A string of 32 characters is a shorter key, or a password.
  if (!isText) return allowsRaw && bytes.byteLength === KEY_BYTES ? bytes : undefined;
  try {
    const key = /^[0-9a-f]{64}$/i.test(text)
      ? Uint8Array.fromHex(text)
      : Uint8Array.fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"));
    return key.byteLength === KEY_BYTES ? key : undefined;
  } catch {
    return undefined;
  }
}
