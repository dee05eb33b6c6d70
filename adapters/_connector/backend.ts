/** An entry for `setMany` of a {@linkcode Backend}. */
export type BackendEntry = readonly [name: string, value: Uint8Array<ArrayBuffer>];

/** What all kinds of connectors are made to look like. Answers are not checked yet. */
export interface Backend {
  /** What is under a name. */
  get(name: string, signal: AbortSignal): unknown;
  /** Puts bytes under a name; `false` says that it did not. */
  set(name: string, value: Uint8Array<ArrayBuffer>, signal: AbortSignal): unknown;
  /** Whether there is something. */
  has(name: string, signal: AbortSignal): unknown;
  /** Removes it; `false` says that there was nothing. */
  delete?(name: string, signal: AbortSignal): unknown;
  /** Bytes under a name, where that is known without reading them. */
  sizeOf?(name: string, signal: AbortSignal): unknown;
  /** All names; those without the prefix do not matter. */
  list?(prefix: string, signal: AbortSignal): AsyncIterable<string>;
  /** `get` for many names. */
  getMany?(names: readonly string[], signal: AbortSignal): unknown;
  /** `set` for many names. */
  setMany?(entries: readonly BackendEntry[], signal: AbortSignal): unknown;
  /** `has` for many names. */
  hasMany?(names: readonly string[], signal: AbortSignal): unknown;
  /** Stops listening; releases everything if it was made for the adapter. */
  close?(): unknown;
}

const NO_BYTES = new Uint8Array(0);

/**
 * The bytes that a connector answered with; `undefined` if it has none, and no bytes where it has
 * something else: what other people keep under the name of an object is no object.
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
