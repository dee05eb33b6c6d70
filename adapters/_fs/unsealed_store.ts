import {
  AdapterError,
  type AdapterObject,
  type AdapterUsage,
  Bitmap,
  type CallOptions,
  type DeleteResult,
  keyTail,
  keyTailBytes,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
  type SweepResult,
} from "../../src/adapter/contract.ts";
import { crc32 } from "../../src/base/checksum.ts";
import type { FileStore } from "./file_store.ts";

/** Checksum format: this magic, then the CRC-32 of the bytes before it, little-endian. */
const MAGIC = new TextEncoder().encode("LMC1");
const CHECKSUM_BYTES = 8;
/** Block size that LMCache's files are padded to with direct I/O. */
const BLOCK_BYTES = 4096;
const padding = new Uint8Array(BLOCK_BYTES);

/** Options of an {@linkcode UnsealedStore}. */
export interface UnsealedStoreOptions {
  /** Whether a checksum is written and required. */
  readonly hasChecksum: boolean;
  /** Whether files are padded to whole blocks. */
  readonly isPadded: boolean;
  /** Called with damaged objects. */
  readonly onError: (error: AdapterError) => void;
}

/**
 * Files in LMCache's format: the raw bytes of an object. A checksum may follow, which only this
 * adapter writes, then arbitrary padding up to a multiple of 4,096 bytes: `fs_native` and
 * `nixl_native` write whole blocks with direct I/O. The content of a file does not identify its
 * object.
 */
export class UnsealedStore implements L2Adapter {
  readonly #files: FileStore;
  readonly #options: UnsealedStoreOptions;
  #unchecked = 0;
  #checked = 0;
  #damaged = 0;
  #withoutChecksum = 0;
  #ofOtherLength = 0;

  constructor(files: FileStore, options: UnsealedStoreOptions) {
    this.#files = files;
    this.#options = options;
  }

  get capabilities(): L2Adapter["capabilities"] {
    return this.#files.capabilities;
  }

  /** Stores each object, with the configured checksum and padding. */
  async store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult> {
    const { hasChecksum, isPadded } = this.#options;
    const files = objects.map((object) => {
      const { key, byteLength, parts } = object;
      // LMCache does not read such a file, and only the file itself can contain the key.
      if (this.#files.isHashed(key)) return followedBy(object, keyTail(key, byteLength, parts));
      const checked = hasChecksum ? followedBy(object, newChecksum(object.parts)) : object;
      return isPadded ? followedBy(checked, paddingOf(checked.byteLength)) : checked;
    });
    const { stored } = await this.#files.store(files, options);
    const bytes = stored.gather(objects).reduce((sum, { byteLength }) => sum + byteLength, 0);
    return { stored, bytes };
  }

  /** See {@linkcode FileStore.lookupAndLock}. */
  lookupAndLock(keys: readonly ObjectKey[], options: LookupOptions): Promise<Bitmap> {
    return this.#files.lookupAndLock(keys, options);
  }

  /** Records uses of objects in device memory. */
  touch(keys: readonly ObjectKey[]): void {
    this.#files.touch(keys);
  }

  /** Removes abandoned temporary files. */
  sweep(): Promise<SweepResult> {
    return this.#files.sweep();
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#files.unlock(keys);
  }

  /** Loads each object; without a checksum, only the length is checked. */
  async load(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<Bitmap> {
    // onLoaded is not passed on: the bytes are verified after they were read.
    const options = { signal };
    const hashed: number[] = [];
    const spelled: number[] = [];
    for (const [i, { key }] of objects.entries()) {
      (this.#files.isHashed(key) ? hashed : spelled).push(i);
    }
    if (hashed.length === 0) return await this.#loadSpelled(objects, options);
    const at = (index: number): AdapterObject => objects[index] as AdapterObject;
    const [first, second] = await Promise.all([
      this.#loadHashed(hashed.map(at), options),
      this.#loadSpelled(spelled.map(at), options),
    ]);
    const loaded = new Bitmap(objects.length);
    for (const i of first.indices()) loaded.set(hashed[i] as number);
    for (const i of second.indices()) loaded.set(spelled[i] as number);
    return loaded;
  }

  /** Loads objects whose key follows in the file; files of earlier versions have no key. */
  async #loadHashed(objects: readonly AdapterObject[], options: CallOptions): Promise<Bitmap> {
    const tails = objects.map(({ key }) => new Uint8Array(keyTailBytes(key)));
    const longer = objects.map((object, i) => followedBy(object, tails[i] as Uint8Array));
    const mismatched: number[] = [];
    const onSizeMismatch = (index: number): void => void mismatched.push(index);
    const loaded = await this.#files.loadWithTrailing(() => [0], longer, {
      ...options,
      onSizeMismatch,
    });
    for (const index of [...loaded.indices()]) {
      const { key, byteLength, parts } = objects[index] as AdapterObject;
      const tail = tails[index] as Uint8Array;
      if (keyTail(key, byteLength, parts).every((byte, i) => byte === tail[i])) {
        this.#checked++;
      } else {
        loaded.clear(index);
        await this.#removeDamaged(
          key,
          "The bytes do not match the key that follows them in the file",
        );
      }
    }
    if (mismatched.length === 0) return loaded;
    const others = mismatched.map((index) => objects[index] as AdapterObject);
    const raw = await this.#loadSpelled(others, options);
    for (const i of raw.indices()) loaded.set(mismatched[i] as number);
    return loaded;
  }

  async #loadSpelled(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
  ): Promise<Bitmap> {
    if (objects.length === 0) return new Bitmap(0);
    if (this.#options.hasChecksum) return await this.#loadChecked(objects, { signal });
    const mismatched: number[] = [];
    const onSizeMismatch = (index: number): void => void mismatched.push(index);
    const loaded = await this.#files.loadWithTrailing(paddingBytes, objects, {
      signal,
      onSizeMismatch,
    });
    this.#unchecked += loaded.popcount();
    if (mismatched.length === 0) return loaded;
    const others = mismatched.map((index) => objects[index] as AdapterObject);
    const checked = await this.#loadChecked(others, { signal });
    for (const i of checked.indices()) loaded.set(mismatched[i] as number);
    return loaded;
  }

  /** Removes objects. */
  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult> {
    const { deleted, bytes } = await this.#files.delete(keys, options);
    const trailingBytes = deleted.gather(keys).reduce(
      (sum, key) => sum + this.#trailingBytesOf(key),
      0,
    );
    return { deleted, bytes: Math.max(0, bytes - trailingBytes) };
  }

  /** Lists the objects whose keys are in their names or files. */
  async *list(options: ListOptions): AsyncIterable<ListedObject> {
    for await (const object of this.#files.list(options)) {
      yield {
        ...object,
        byteLength: Math.max(0, object.byteLength - this.#trailingBytesOf(object.key)),
      };
    }
  }

  /** Counts files and their bytes. */
  async usage(options: CallOptions): Promise<AdapterUsage> {
    const usage = await this.#files.usage(options);
    const checksums = (this.#options.hasChecksum ? CHECKSUM_BYTES : 0) * usage.objectCount;
    return { ...usage, usedBytes: Math.max(0, usage.usedBytes - checksums) };
  }

  /**
   * The status of the files, and how many objects were loaded unchecked, checked, or not at all.
   */
  reportStatus(): Record<string, unknown> {
    const unsealed = {
      loadedUnchecked: this.#unchecked,
      loadedWithChecksum: this.#checked,
      damaged: this.#damaged,
      withoutChecksum: this.#withoutChecksum,
      ofOtherLength: this.#ofOtherLength,
    };
    return { ...this.#files.reportStatus(), unsealed };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#files[Symbol.asyncDispose]();
  }

  /** Bytes that follow an object in its file, without padding. */
  #trailingBytesOf(key: ObjectKey): number {
    if (this.#files.isHashed(key)) return keyTailBytes(key);
    return this.#options.hasChecksum ? CHECKSUM_BYTES : 0;
  }

  async #removeDamaged(key: ObjectKey, message: string): Promise<void> {
    this.#damaged++;
    const cause = new Error(message);
    this.#options.onError(new AdapterError({ adapter: "fs", operation: "load", key, cause }));
    await this.#files.removeDamaged(key);
  }

  /** Loads objects with a checksum; others are misses. */
  async #loadChecked(objects: readonly AdapterObject[], options: CallOptions): Promise<Bitmap> {
    const checksums = objects.map(() => new Uint8Array(CHECKSUM_BYTES));
    const longer = objects.map((object, i) => followedBy(object, checksums[i] as Uint8Array));
    const mismatched: AdapterObject[] = [];
    const onSizeMismatch = (index: number): void =>
      void mismatched.push(objects[index] as AdapterObject);
    const loaded = await this.#files.loadWithTrailing(checksumAndPadding, longer, {
      ...options,
      onSizeMismatch,
    });
    for (const index of [...loaded.indices()]) {
      const object = objects[index] as AdapterObject;
      const { key, parts } = object;
      const checksum = checksums[index] as Uint8Array;
      if (!MAGIC.every((byte, i) => checksum[i] === byte)) {
        loaded.clear(index);
        mismatched.push(object);
      } else if (new DataView(checksum.buffer).getUint32(4, true) !== checksumOf(parts)) {
        loaded.clear(index);
        await this.#removeDamaged(
          key,
          "The bytes do not match the checksum that follows them in the file",
        );
      } else {
        this.#checked++;
      }
    }
    if (mismatched.length > 0) await this.#count(mismatched, options);
    return loaded;
  }

  /** Counts misses of existing files by reason. */
  async #count(mismatched: readonly AdapterObject[], options: CallOptions): Promise<void> {
    // If no checksum is required, each file was tried as a raw file before.
    const { hasChecksum } = this.#options;
    const sizes = hasChecksum ? await this.#files.fileBytesOf(mismatched, options) : [];
    for (const [i, { byteLength }] of mismatched.entries()) {
      const isRaw = paddingBytes(byteLength).some((rest) => byteLength + rest === sizes[i]);
      if (isRaw) this.#withoutChecksum++;
      else this.#ofOtherLength++;
    }
  }
}

/** Possible bytes after a raw object. */
function paddingBytes(byteLength: number): readonly number[] {
  return [0, paddedBytes(byteLength) - byteLength];
}

/** Possible bytes after a checksum, which may have a block of its own. */
function checksumAndPadding(byteLength: number): readonly number[] {
  return [...paddingBytes(byteLength), BLOCK_BYTES - CHECKSUM_BYTES];
}

function paddedBytes(byteLength: number): number {
  return Math.ceil(byteLength / BLOCK_BYTES) * BLOCK_BYTES;
}

function paddingOf(byteLength: number): Uint8Array {
  return padding.subarray(0, paddedBytes(byteLength) - byteLength);
}

function newChecksum(parts: readonly Uint8Array[]): Uint8Array {
  const checksum = new Uint8Array(CHECKSUM_BYTES);
  checksum.set(MAGIC);
  new DataView(checksum.buffer).setUint32(4, checksumOf(parts), true);
  return checksum;
}

function followedBy(object: AdapterObject, bytes: Uint8Array): AdapterObject {
  const { key, parts, byteLength } = object;
  return { key, parts: [...parts, bytes], byteLength: byteLength + bytes.byteLength };
}

function checksumOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((checksum, part) => crc32(part, checksum), 0);
}
