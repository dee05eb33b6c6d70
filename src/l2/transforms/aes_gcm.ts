import { type RandomSource, systemRandom } from "../../runtime/random.ts";
import { concatParts } from "../adapter.ts";
import { MasterKey, masterKeyFields, readMasterKey } from "./master_key.ts";
import {
  defineTransform,
  type Transform,
  type TransformContext,
  type TransformModule,
} from "./transform.ts";

/** Bytes of a nonce, which stands in front of what is encrypted. */
const NONCE_BYTES = 12;
/** Bytes of the tag behind it. */
const TAG_BYTES = 16;

const DOMAIN = new TextEncoder().encode("kvtier aesgcm 1");

const config = {
  ...masterKeyFields,
  aes_bits: {
    type: "number",
    default: 256,
    check: (bits: number) => bits === 256 ? undefined : "256",
    help: "Bits of the keys: 256.",
  },
} as const;

/** Encrypts objects with AES-256-GCM, under a key for each cache salt. */
export const aesGcm: TransformModule<typeof config> = defineTransform({
  type: "aesgcm",
  summary: "Encrypts objects with AES-256-GCM, under a key for each cache salt.",
  config,
  async create(values, refuse) {
    const masterKey = await MasterKey.import(await readMasterKey(values, refuse));
    return new AesGcmTransform(masterKey);
  },
});

/**
 * A random nonce, the encrypted bytes and their tag. The key of the object and the chain of
 * transforms are authenticated with it: under other ones, nothing is decrypted.
 */
export class AesGcmTransform implements Transform {
  /** Names the master key, as a digest. */
  readonly identity: string;
  /** The nonce and the tag. */
  readonly addedBytes: number = NONCE_BYTES + TAG_BYTES;
  readonly #masterKey: MasterKey;
  readonly #random: RandomSource;

  /** Encrypts under keys that are derived from `masterKey`. */
  constructor(masterKey: MasterKey, random: RandomSource = systemRandom) {
    this.identity = `aesgcm 1 ${masterKey.id}`;
    this.#masterKey = masterKey;
    this.#random = random;
  }

  /** Encrypts an object. */
  async encode(
    parts: readonly Uint8Array<ArrayBuffer>[],
    context: TransformContext,
  ): Promise<readonly Uint8Array<ArrayBuffer>[]> {
    const key = await this.#masterKey.keyFor(context.key.cacheSalt);
    const nonce = new Uint8Array(this.#random.bytes(NONCE_BYTES));
    const [first = new Uint8Array(0), ...others] = parts;
    const plain = others.length === 0 ? first : concatParts(parts);
    const sealed = await crypto.subtle.encrypt(algorithm(nonce, context), key, plain);
    return [nonce, new Uint8Array(sealed)];
  }

  /** Decrypts an object that is authentic. */
  async decode(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
    context: TransformContext,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (bytes.byteLength !== byteLength + this.addedBytes) return undefined;
    const key = await this.#masterKey.keyFor(context.key.cacheSalt);
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const sealed = bytes.subarray(NONCE_BYTES);
    try {
      return new Uint8Array(await crypto.subtle.decrypt(algorithm(nonce, context), key, sealed));
    } catch (error) {
      if (error instanceof DOMException && error.name === "OperationError") return undefined;
      throw error;
    }
  }

  /** There is nothing to release. */
  [Symbol.dispose](): void {}
}

function algorithm(
  iv: Uint8Array<ArrayBuffer>,
  { key, fingerprint }: TransformContext,
): AesGcmParams {
  const additionalData = concatParts([DOMAIN, fingerprint, key.toBytes()]);
  return { name: "AES-GCM", iv, additionalData, tagLength: 8 * TAG_BYTES };
}
