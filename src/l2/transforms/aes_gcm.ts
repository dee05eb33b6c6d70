import { type RandomSource, systemRandom } from "../../base/random.ts";
import { concatParts } from "../../adapter/contract.ts";
import { isUnshared } from "../../base/byte_parts.ts";
import { MasterKey, masterKeyFields, readMasterKey } from "./master_key.ts";
import {
  defineTransform,
  type Transform,
  type TransformContext,
  type TransformModule,
} from "./transform.ts";

/** Size in bytes of the nonce, which precedes the ciphertext. */
const NONCE_BYTES = 12;
/** Size in bytes of the tag, which follows the ciphertext. */
const TAG_BYTES = 16;

const DOMAIN = new TextEncoder().encode("kvtier aesgcm 1");

const config = {
  ...masterKeyFields,
  aes_bits: {
    type: "number",
    default: 256,
    check: (bits: number) => bits === 256 ? undefined : "256",
    help: "Key size in bits; must be 256.",
  },
} as const;

/** Encrypts objects with AES-256-GCM, with a separate key for each cache salt. */
export const aesGcm: TransformModule<typeof config> = defineTransform({
  type: "aesgcm",
  summary: "Encrypts objects with AES-256-GCM, with a separate key for each cache salt.",
  config,
  async create(values, refuse) {
    const masterKey = await MasterKey.import(await readMasterKey(values, refuse));
    return new AesGcmTransform(masterKey);
  },
});

/**
 * Stores a random nonce, the ciphertext and the tag. The object's key and the chain of transforms
 * are authenticated as well: nothing is decrypted under others.
 */
export class AesGcmTransform implements Transform {
  /** Identifies the master key by a digest. */
  readonly identity: string;
  /** Bytes of the nonce and the tag. */
  readonly addedBytes: number = NONCE_BYTES + TAG_BYTES;
  readonly #masterKey: MasterKey;
  readonly #random: RandomSource;

  /** Encrypts with keys derived from `masterKey`. */
  constructor(masterKey: MasterKey, random: RandomSource = systemRandom) {
    this.identity = `aesgcm 1 ${masterKey.id}`;
    this.#masterKey = masterKey;
    this.#random = random;
  }

  async encode(
    parts: readonly Uint8Array[],
    context: TransformContext,
  ): Promise<readonly Uint8Array[]> {
    const key = await this.#masterKey.keyFor(context.key.cacheSalt);
    const nonce = new Uint8Array(this.#random.bytes(NONCE_BYTES));
    const [first = new Uint8Array(0), ...others] = parts;
    const plain = others.length === 0 && isUnshared(first) ? first : concatParts(parts);
    const ciphertext = await crypto.subtle.encrypt(algorithm(nonce, context), key, plain);
    return [nonce, new Uint8Array(ciphertext)];
  }

  /** Decrypts an object; `undefined` if it is not authentic. */
  async decode(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
    context: TransformContext,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (bytes.byteLength !== byteLength + this.addedBytes) return undefined;
    const key = await this.#masterKey.keyFor(context.key.cacheSalt);
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const ciphertext = bytes.subarray(NONCE_BYTES);
    try {
      return new Uint8Array(
        await crypto.subtle.decrypt(algorithm(nonce, context), key, ciphertext),
      );
    } catch (error) {
      if (error instanceof DOMException && error.name === "OperationError") return undefined;
      throw error;
    }
  }

  /** Holds nothing that has to be released. */
  [Symbol.dispose](): void {}
}

function algorithm(
  iv: Uint8Array<ArrayBuffer>,
  { key, fingerprint }: TransformContext,
): AesGcmParams {
  const additionalData = concatParts([DOMAIN, fingerprint, key.toBytes()]);
  return { name: "AES-GCM", iv, additionalData, tagLength: 8 * TAG_BYTES };
}
