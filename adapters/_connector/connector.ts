/** A value, or a promise of one. */
export type Awaitable<T> = T | PromiseLike<T>;

/** Options of all calls of a {@linkcode Connector}. */
export interface ConnectorOptions {
  /** Aborts when the caller stops waiting; the connector may then stop too. */
  readonly signal: AbortSignal;
}

/** Options of `list` of a {@linkcode Connector}. */
export interface ConnectorListOptions extends ConnectorOptions {
  /** Keys without this prefix may be left out. */
  readonly prefix: string;
}

/**
 * Any key-value store that accepts binary values, such as a `Map`. Keys are printable ASCII of at
 * most 255 characters. An error affects only the key of the call. `exists` or `has` is required.
 * `delete` allows objects to be removed and evicted; `list` or `keys` allows objects of earlier
 * processes to be counted. The methods for many keys are optional; if one fails, the method for a
 * single key is called for each key.
 */
export interface Connector {
  /**
   * The bytes under a key; `null` or `undefined` if there are none. The adapter does not modify
   * them.
   */
  get(
    key: string,
    options: ConnectorOptions,
  ): Awaitable<Uint8Array | ArrayBuffer | null | undefined>;
  /**
   * Sets the bytes under a key, atomically if possible. The connector may keep the array.
   *
   * @returns `false` if the value was not stored; anything else means that it was.
   */
  set(key: string, value: Uint8Array<ArrayBuffer>, options: ConnectorOptions): Awaitable<unknown>;
  /** Whether a key has a value. */
  exists?(key: string, options: ConnectorOptions): Awaitable<unknown>;
  /** Alias of `exists`. */
  has?(key: string, options: ConnectorOptions): Awaitable<unknown>;
  /** Removes a value. `false` means that there was none. */
  delete?(key: string, options: ConnectorOptions): Awaitable<unknown>;
  /** All keys. */
  list?(options: ConnectorListOptions): Awaitable<Iterable<string> | AsyncIterable<string>>;
  /** Alias of `list`. */
  keys?(): Awaitable<Iterable<string> | AsyncIterable<string>>;
  /** Bytes of a value, if known without reading it. */
  sizeOf?(key: string, options: ConnectorOptions): Awaitable<number | undefined>;
  /** `get` for many keys; returns one answer per key. */
  getMany?(keys: readonly string[], options: ConnectorOptions): Awaitable<readonly unknown[]>;
  /** `set` for many keys; returns one answer per key, or nothing. */
  setMany?(
    entries: readonly (readonly [key: string, value: Uint8Array<ArrayBuffer>])[],
    options: ConnectorOptions,
  ): Awaitable<unknown>;
  /** `exists` for many keys; returns one answer per key. */
  existsMany?(keys: readonly string[], options: ConnectorOptions): Awaitable<readonly unknown[]>;
  /** Alias of `existsMany`. */
  hasMany?(keys: readonly string[], options: ConnectorOptions): Awaitable<readonly unknown[]>;
  /** Releases all resources; called only if the module's function created the connector. */
  close?(): Awaitable<unknown>;
}
