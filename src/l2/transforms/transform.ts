import type { ObjectKey } from "../../keys/object_key.ts";
import type { ConfigFields, ConfigValues } from "../../adapter/config.ts";

/** Data that a transform may authenticate along with the bytes. */
export interface TransformContext {
  readonly key: ObjectKey;
  /** 8 bytes that identify the chain of transforms. */
  readonly fingerprint: Uint8Array;
}

/**
 * Transforms the bytes of objects before they are stored in an adapter, and reverses that after
 * they are loaded.
 */
export interface Transform extends Disposable {
  /**
   * Identifies everything needed to decode; a transform with another identity could not. Never a
   * secret.
   */
  readonly identity: string;
  /** Bytes that it adds; `undefined` if it removes a varying number of bytes and never adds any. */
  readonly addedBytes: number | undefined;
  /**
   * Encodes the bytes of an object.
   *
   * @param parts Bytes of the object; must not be changed or detached.
   * @returns New parts, or the same ones if nothing changed.
   */
  encode(
    parts: readonly Uint8Array[],
    context: TransformContext,
  ): Promise<readonly Uint8Array[]>;
  /**
   * Reverses {@linkcode encode}.
   *
   * @param bytes Result of `encode`, in one piece.
   * @param byteLength Number of bytes that `encode` received; the result must have the same length.
   * @returns `undefined` if the bytes are not a result of `encode` for such an object.
   */
  decode(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
    context: TransformContext,
  ): Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/** Rejects the value of a configuration key by throwing an error. */
export type RefuseValue = (key: string, expected: string, received: unknown) => never;

/** A module that provides one type of transform. */
export interface TransformModule<Fields extends ConfigFields = ConfigFields> {
  /** Name in configurations. */
  readonly type: string;
  /** Summary in one sentence. */
  readonly summary: string;
  /** Configuration keys other than `type`. */
  readonly config: Fields;
  /** Creates a transform, or calls `refuse` if the configuration is not valid. */
  create(config: ConfigValues<Fields>, refuse: RefuseValue): Promise<Transform>;
}

/** Declares a transform. The types of its configuration are inferred from the declaration. */
export function defineTransform<const Fields extends ConfigFields>(
  module: TransformModule<Fields>,
): TransformModule<Fields> {
  return module;
}
