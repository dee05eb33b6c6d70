/** An entry for `setMany` of a {@linkcode Backend}. */
export type BackendEntry = readonly [name: string, value: Uint8Array<ArrayBuffer>];

/** Common interface of all kinds of connectors. The answers are unchecked. */
export interface Backend {
  /** The value of a key. */
  get(name: string, signal: AbortSignal): unknown;
  /** Sets the value of a key; `false` means that it was not stored. */
  set(name: string, value: Uint8Array<ArrayBuffer>, signal: AbortSignal): unknown;
  /** Whether a key has a value. */
  has(name: string, signal: AbortSignal): unknown;
  /** Removes a value; `false` means that there was none. */
  delete?(name: string, signal: AbortSignal): unknown;
  /** Bytes of a value, if known without reading it. */
  sizeOf?(name: string, signal: AbortSignal): unknown;
  /** All keys. May include keys without the prefix. */
  list?(prefix: string, signal: AbortSignal): AsyncIterable<string>;
  /** `get` for many keys. */
  getMany?(names: readonly string[], signal: AbortSignal): unknown;
  /** `set` for many keys. */
  setMany?(entries: readonly BackendEntry[], signal: AbortSignal): unknown;
  /** `has` for many keys. */
  hasMany?(names: readonly string[], signal: AbortSignal): unknown;
  /** Removes listeners; releases all resources if the adapter created the connector. */
  close?(): unknown;
}

const NO_BYTES = new Uint8Array(0);

/**
 * The bytes in a connector's answer; `undefined` if there is no value. A value of another type,
 * written by another program, becomes an empty array.
 */
export function bytesIn(answer: unknown): Uint8Array | undefined {
  if (answer === null || answer === undefined) return undefined;
  if (answer instanceof Uint8Array) return answer;
  if (answer instanceof ArrayBuffer) return new Uint8Array(answer);
  if (ArrayBuffer.isView(answer)) {
    return new Uint8Array(answer.buffer, answer.byteOffset, answer.byteLength);
  }
  return NO_BYTES;
}
