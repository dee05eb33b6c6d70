/** A value, or a promise of it. */
export type Awaitable<T> = T | PromiseLike<T>;

/** Options of every call of a {@linkcode Connector}. */
export interface ConnectorOptions {
  /** Aborts when nobody waits any more; the connector may stop too. */
  readonly signal: AbortSignal;
}

/** Options of `list` of a {@linkcode Connector}. */
export interface ConnectorListOptions extends ConnectorOptions {
  /** Only keys that begin with it matter. */
  readonly prefix: string;
}

/**
 * Any store of bytes under texts: a `Map` is one. Keys are printable ASCII, at most 255 characters.
 * What it throws costs the key that it was asked for. One of `exists` and `has` is required; with
 * `delete` objects can be removed and evicted, with `list` or `keys` those of an earlier process
 * are counted. A method for many keys is used where there is one, and where it throws, that for one
 * key is tried for each.
 */
export interface Connector {
  /** The bytes under a key; `null` or `undefined` if there are none. They are only read. */
  get(
    key: string,
    options: ConnectorOptions,
  ): Awaitable<Uint8Array | ArrayBuffer | null | undefined>;
  /**
   * Puts bytes under a key, all at once if it can. The array is its own: it may keep it.
   *
   * @returns `false` if it did not; anything else says that it did.
   */
  set(key: string, value: Uint8Array<ArrayBuffer>, options: ConnectorOptions): Awaitable<unknown>;
  /** Whether there is something under a key. */
  exists?(key: string, options: ConnectorOptions): Awaitable<unknown>;
  /** The same under another name. */
  has?(key: string, options: ConnectorOptions): Awaitable<unknown>;
  /** Removes what is under a key. `false` says that there was nothing. */
  delete?(key: string, options: ConnectorOptions): Awaitable<unknown>;
  /** All keys. */
  list?(options: ConnectorListOptions): Awaitable<Iterable<string> | AsyncIterable<string>>;
  /** The same under another name. */
  keys?(): Awaitable<Iterable<string> | AsyncIterable<string>>;
  /** Bytes under a key, where it can tell without reading them. */
  sizeOf?(key: string, options: ConnectorOptions): Awaitable<number | undefined>;
  /** `get` for many keys: one answer a key. */
  getMany?(keys: readonly string[], options: ConnectorOptions): Awaitable<readonly unknown[]>;
  /** `set` for many keys: one answer a key, or nothing. */
  setMany?(
    entries: readonly (readonly [key: string, value: Uint8Array<ArrayBuffer>])[],
    options: ConnectorOptions,
  ): Awaitable<unknown>;
  /** `exists` for many keys: one answer a key. */
  existsMany?(keys: readonly string[], options: ConnectorOptions): Awaitable<readonly unknown[]>;
  /** The same under another name. */
  hasMany?(keys: readonly string[], options: ConnectorOptions): Awaitable<readonly unknown[]>;
  /** Releases everything; only called if the module's factory made the connector. */
  close?(): Awaitable<unknown>;
}
