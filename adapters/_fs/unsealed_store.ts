import {
  AdapterError,
  type AdapterObject,
  type AdapterUsage,
  type Bitmap,
  type CallOptions,
  type DeleteResult,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
} from "../../src/l2/adapter.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import type { FileStore } from "./file_store.ts";

/** LMCache's checksum: this magic, then the CRC-32 of the bytes before it, little-endian. */
const MAGIC = new TextEncoder().encode("LMC1");
const CHECKSUM_BYTES = 8;
/** What stands behind the bytes where LMCache wrote past the page cache: whole blocks. */
const BLOCK_BYTES = 4096;

/** How an {@linkcode UnsealedStore} is set up. */
export interface UnsealedStoreOptions {
  /** Whether a checksum is written, and demanded. */
  readonly hasChecksum: boolean;
  /** Told about objects that are damaged. */
  readonly onError: (error: AdapterError) => void;
}

/**
 * Files as LMCache's `fs` adapter reads and writes them: the raw bytes of an object, with an
 * optional checksum behind them. Nothing in a file says whose bytes they are.
 */
export class UnsealedStore implements L2Adapter {
  readonly #files: FileStore;
  readonly #options: UnsealedStoreOptions;
  #checked = 0;
  #unchecked = 0;
  #damaged = 0;

  /** Objects are kept in `files`. */
  constructor(files: FileStore, options: UnsealedStoreOptions) {
    this.#files = files;
    this.#options = options;
  }

  /** Those of the files. */
  get capabilities(): L2Adapter["capabilities"] {
    return this.#files.capabilities;
  }

  /** Publishes each object, with its checksum if there is to be one. */
  async store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult> {
    if (!this.#options.hasChecksum) return await this.#files.store(objects, options);
    const withChecksums = objects.map((object) => {
      const checksum = new Uint8Array(CHECKSUM_BYTES);
      checksum.set(MAGIC);
      new DataView(checksum.buffer).setUint32(4, checksumOf(object.parts), true);
      return followedBy(object, checksum);
    });
    const { stored, bytes } = await this.#files.store(withChecksums, options);
    return { stored, bytes: bytes - this.#checksumBytes * stored.popcount() };
  }

  /** Asks for objects, as {@linkcode FileStore.lookupAndLock} does. */
  lookupAndLock(keys: readonly ObjectKey[], options: LookupOptions): Promise<Bitmap> {
    return this.#files.lookupAndLock(keys, options);
  }

  /** Notes that objects were read from device memory. */
  touch(keys: readonly ObjectKey[]): void {
    this.#files.touch(keys);
  }

  /** Lets objects be evicted again. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#files.unlock(keys);
  }

  /** Reads each object; without a checksum, only its length can be taken for granted. */
  async load(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<Bitmap> {
    const { hasChecksum } = this.#options;
    if (hasChecksum) return await this.#loadChecked(objects, { signal });
    const loaded = await this.#files.load(objects, { signal });
    this.#unchecked += loaded.popcount();
    const missed = [...objects.keys()].filter((index) => !loaded.test(index));
    if (missed.length === 0) return loaded;
    const others = missed.map((index) => objects[index] as AdapterObject);
    const checked = await this.#loadChecked(others, { signal });
    for (const i of checked.indices()) loaded.set(missed[i] as number);
    return loaded;
  }

  /** Removes objects. */
  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult> {
    const { deleted, bytes } = await this.#files.delete(keys, options);
    return { deleted, bytes: Math.max(0, bytes - this.#checksumBytes * deleted.popcount()) };
  }

  /** Enumerates the objects whose names spell their keys. */
  async *list(options: ListOptions): AsyncIterable<ListedObject> {
    for await (const object of this.#files.list(options)) {
      yield { ...object, byteLength: Math.max(0, object.byteLength - this.#checksumBytes) };
    }
  }

  /** Counts files and their bytes. */
  async usage(options: CallOptions): Promise<AdapterUsage> {
    const usage = await this.#files.usage(options);
    const checksums = this.#checksumBytes * usage.objectCount;
    return { ...usage, usedBytes: Math.max(0, usage.usedBytes - checksums) };
  }

  /** What the files say, and how many objects were loaded on trust. */
  reportStatus(): Record<string, unknown> {
    const unsealed = {
      loadedUnchecked: this.#unchecked,
      loadedWithChecksum: this.#checked,
      damaged: this.#damaged,
    };
    return { ...this.#files.reportStatus(), unsealed };
  }

  /** Closes the files. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#files[Symbol.asyncDispose]();
  }

  get #checksumBytes(): number {
    return this.#options.hasChecksum ? CHECKSUM_BYTES : 0;
  }

  /** Loads objects that have a checksum; others are misses. */
  async #loadChecked(objects: readonly AdapterObject[], options: CallOptions): Promise<Bitmap> {
    const checksums = objects.map(() => new Uint8Array(CHECKSUM_BYTES));
    const longer = objects.map((object, i) =>
      followedBy(object, checksums[i] as Uint8Array<ArrayBuffer>)
    );
    const rests = [0, BLOCK_BYTES - CHECKSUM_BYTES];
    const loaded = await this.#files.loadFollowedBy(rests, longer, options);
    for (const index of [...loaded.indices()]) {
      const { key, parts } = objects[index] as AdapterObject;
      const checksum = checksums[index] as Uint8Array<ArrayBuffer>;
      if (!MAGIC.every((byte, i) => checksum[i] === byte)) {
        loaded.clear(index);
      } else if (new DataView(checksum.buffer).getUint32(4, true) !== checksumOf(parts)) {
        loaded.clear(index);
        this.#damaged++;
        const cause = new Error("The bytes do not have the checksum that stands behind them");
        this.#options.onError(new AdapterError({ adapter: "fs", operation: "load", key, cause }));
        await this.#files.removeDamaged(key);
      } else {
        this.#checked++;
      }
    }
    return loaded;
  }
}

function followedBy(object: AdapterObject, bytes: Uint8Array<ArrayBuffer>): AdapterObject {
  const { key, parts, byteLength } = object;
  return { key, parts: [...parts, bytes], byteLength: byteLength + bytes.byteLength };
}

function checksumOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((checksum, part) => crc32(part, checksum), 0);
}
