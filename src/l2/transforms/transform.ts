import type { ObjectKey } from "../../keys/object_key.ts";
import type { ConfigFields, ConfigValues } from "../adapter_config.ts";

/** What a transform may bind bytes to. */
export interface TransformContext {
  /** What the object is called. */
  readonly key: ObjectKey;
  /** 8 bytes that tell the chain of transforms from others. */
  readonly fingerprint: Uint8Array;
}

/** Changes the bytes of objects on their way into an adapter, and back. */
export interface Transform extends Disposable {
  /** What undoing it takes: one that has another identity could not. Never a secret. */
  readonly identity: string;
  /** Bytes that it adds; `undefined` if it takes away as many as it can, and adds none. */
  readonly addedBytes: number | undefined;
  /**
   * Changes the bytes of an object.
   *
   * @param parts The bytes, which it neither changes nor detaches.
   * @returns Other parts, or the same ones if there is nothing to change.
   */
  encode(
    parts: readonly Uint8Array<ArrayBuffer>[],
    context: TransformContext,
  ): Promise<readonly Uint8Array<ArrayBuffer>[]>;
  /**
   * The inverse of {@linkcode encode}.
   *
   * @param bytes What that returned, in one piece.
   * @param byteLength Bytes that it was given: neither more nor less come back.
   * @returns `undefined` if the bytes are not what it returned for such an object.
   */
  decode(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
    context: TransformContext,
  ): Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/** Tells what is wrong with the value of a key, and ends there. */
export type RefuseValue = (key: string, expected: string, received: unknown) => never;

/** What provides one type of transform. */
export interface TransformModule<Fields extends ConfigFields = ConfigFields> {
  /** The name in configurations. */
  readonly type: string;
  /** One sentence. */
  readonly summary: string;
  /** The configuration keys, beside `type`. */
  readonly config: Fields;
  /** Makes a transform; a configuration that cannot work is refused. */
  create(config: ConfigValues<Fields>, refuse: RefuseValue): Promise<Transform>;
}

/** Declares a transform; the types of its configuration follow from the declaration. */
export function defineTransform<const Fields extends ConfigFields>(
  module: TransformModule<Fields>,
): TransformModule<Fields> {
  return module;
}
