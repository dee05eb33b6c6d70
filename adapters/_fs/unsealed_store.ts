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
} from "../../src/l2/adapter.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import type { FileStore } from "./file_store.ts";

/** The checksum: this magic, then the CRC-32 of the bytes before it, little-endian. */
const MAGIC = new TextEncoder().encode("LMC1");
const CHECKSUM_BYTES = 8;
/** What LMCache's files are padded to where it writes past the page cache. */
const BLOCK_BYTES = 4096;
const padding = new Uint8Array(BLOCK_BYTES);

/** How an {@linkcode UnsealedStore} is set up. */
export interface UnsealedStoreOptions {
  /** Whether a checksum is written, and demanded. */
  readonly hasChecksum: boolean;
  /** Whether files are padded to whole blocks. */
  readonly isPadded: boolean;
  /** Told about objects that are damaged. */
  readonly onError: (error: AdapterError) => void;
}

/**
 * Files as LMCache's adapters read and write them: the raw bytes of an object. Behind them there may
 * be a checksum, which only this adapter writes, and then bytes that mean nothing, up to a whole
 * block of 4,096 bytes: `fs_native` and `nixl_native` write whole blocks with direct I/O. Nothing in
 * a file says whose bytes they are.
 */
export class UnsealedStore implements L2Adapter {
  readonly #files: FileStore;
  readonly #options: UnsealedStoreOptions;
  #unchecked = 0;
  #checked = 0;
  #damaged = 0;
  #withoutChecksum = 0;
  #ofOtherLength = 0;

  /** Objects are kept in `files`. */
  constructor(files: FileStore, options: UnsealedStoreOptions) {
    this.#files = files;
    this.#options = options;
  }

  /** Those of the files. */
  get capabilities(): L2Adapter["capabilities"] {
    return this.#files.capabilities;
  }

  /** Publishes each object, with its checksum and its padding if there is to be one. */
  async store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult> {
    const { hasChecksum, isPadded } = this.#options;
    const files = objects.map((object) => {
      const { key, byteLength, parts } = object;
      // LMCache does not read it, and nothing but the file can tell its key.
      if (this.#files.isHashed(key)) return followedBy(object, keyTail(key, byteLength, parts));
      const checked = hasChecksum ? followedBy(object, newChecksum(object.parts)) : object;
      return isPadded ? followedBy(checked, paddingOf(checked.byteLength)) : checked;
    });
    const { stored } = await this.#files.store(files, options);
    const bytes = stored.gather(objects).reduce((sum, { byteLength }) => sum + byteLength, 0);
    return { stored, bytes };
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
    // Nobody is told of objects one by one: what is read may not be what was asked for yet.
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

  /** Loads objects whose key stands behind them; of those of earlier versions, none does. */
  async #loadHashed(objects: readonly AdapterObject[], options: CallOptions): Promise<Bitmap> {
    const tails = objects.map(({ key }) => new Uint8Array(keyTailBytes(key)));
    const longer = objects.map((object, i) =>
      followedBy(object, tails[i] as Uint8Array<ArrayBuffer>)
    );
    const misfits: number[] = [];
    const onMisfit = (index: number): void => void misfits.push(index);
    const loaded = await this.#files.loadFollowedBy(() => [0], longer, { ...options, onMisfit });
    for (const index of [...loaded.indices()]) {
      const { key, byteLength, parts } = objects[index] as AdapterObject;
      const tail = tails[index] as Uint8Array<ArrayBuffer>;
      if (keyTail(key, byteLength, parts).every((byte, i) => byte === tail[i])) {
        this.#checked++;
      } else {
        loaded.clear(index);
        await this.#removeDamaged(
          key,
          "The bytes are not those that belong to the key behind them",
        );
      }
    }
    if (misfits.length === 0) return loaded;
    const others = misfits.map((index) => objects[index] as AdapterObject);
    const raw = await this.#loadSpelled(others, options);
    for (const i of raw.indices()) loaded.set(misfits[i] as number);
    return loaded;
  }

  async #loadSpelled(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
  ): Promise<Bitmap> {
    if (objects.length === 0) return new Bitmap(0);
    if (this.#options.hasChecksum) return await this.#loadChecked(objects, { signal });
    const misfits: number[] = [];
    const onMisfit = (index: number): void => void misfits.push(index);
    const loaded = await this.#files.loadFollowedBy(paddingRests, objects, { signal, onMisfit });
    this.#unchecked += loaded.popcount();
    if (misfits.length === 0) return loaded;
    const others = misfits.map((index) => objects[index] as AdapterObject);
    const checked = await this.#loadChecked(others, { signal });
    for (const i of checked.indices()) loaded.set(misfits[i] as number);
    return loaded;
  }

  /** Removes objects. */
  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult> {
    const { deleted, bytes } = await this.#files.delete(keys, options);
    const rests = deleted.gather(keys).reduce((sum, key) => sum + this.#restBytesOf(key), 0);
    return { deleted, bytes: Math.max(0, bytes - rests) };
  }

  /** Enumerates the objects whose keys stand in their names, or behind them. */
  async *list(options: ListOptions): AsyncIterable<ListedObject> {
    for await (const object of this.#files.list(options)) {
      yield {
        ...object,
        byteLength: Math.max(0, object.byteLength - this.#restBytesOf(object.key)),
      };
    }
  }

  /** Counts files and their bytes. */
  async usage(options: CallOptions): Promise<AdapterUsage> {
    const usage = await this.#files.usage(options);
    const checksums = (this.#options.hasChecksum ? CHECKSUM_BYTES : 0) * usage.objectCount;
    return { ...usage, usedBytes: Math.max(0, usage.usedBytes - checksums) };
  }

  /** What the files say, how many objects were loaded on trust, and why others were not. */
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

  /** Closes the files. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#files[Symbol.asyncDispose]();
  }

  /** Bytes behind an object, without padding. */
  #restBytesOf(key: ObjectKey): number {
    if (this.#files.isHashed(key)) return keyTailBytes(key);
    return this.#options.hasChecksum ? CHECKSUM_BYTES : 0;
  }

  async #removeDamaged(key: ObjectKey, message: string): Promise<void> {
    this.#damaged++;
    const cause = new Error(message);
    this.#options.onError(new AdapterError({ adapter: "fs", operation: "load", key, cause }));
    await this.#files.removeDamaged(key);
  }

  /** Loads objects that have a checksum; others are misses. */
  async #loadChecked(objects: readonly AdapterObject[], options: CallOptions): Promise<Bitmap> {
    const checksums = objects.map(() => new Uint8Array(CHECKSUM_BYTES));
    const longer = objects.map((object, i) =>
      followedBy(object, checksums[i] as Uint8Array<ArrayBuffer>)
    );
    const misfits: AdapterObject[] = [];
    const onMisfit = (index: number): void => void misfits.push(objects[index] as AdapterObject);
    const loaded = await this.#files.loadFollowedBy(checksumRests, longer, {
      ...options,
      onMisfit,
    });
    for (const index of [...loaded.indices()]) {
      const object = objects[index] as AdapterObject;
      const { key, parts } = object;
      const checksum = checksums[index] as Uint8Array<ArrayBuffer>;
      if (!MAGIC.every((byte, i) => checksum[i] === byte)) {
        loaded.clear(index);
        misfits.push(object);
      } else if (new DataView(checksum.buffer).getUint32(4, true) !== checksumOf(parts)) {
        loaded.clear(index);
        await this.#removeDamaged(
          key,
          "The bytes do not have the checksum that stands behind them",
        );
      } else {
        this.#checked++;
      }
    }
    if (misfits.length > 0) await this.#count(misfits, options);
    return loaded;
  }

  /** Counts misses of objects that are there, by what their files are instead. */
  async #count(misfits: readonly AdapterObject[], options: CallOptions): Promise<void> {
    // Without a checksum demanded, each was tried as a raw file before.
    const { hasChecksum } = this.#options;
    const sizes = hasChecksum ? await this.#files.fileBytesOf(misfits, options) : [];
    for (const [i, { byteLength }] of misfits.entries()) {
      const isRaw = paddingRests(byteLength).some((rest) => byteLength + rest === sizes[i]);
      if (isRaw) this.#withoutChecksum++;
      else this.#ofOtherLength++;
    }
  }
}

/** What may stand behind raw bytes. */
function paddingRests(byteLength: number): readonly number[] {
  return [0, paddedBytes(byteLength) - byteLength];
}

/** What may stand behind a checksum, which may have a block of its own. */
function checksumRests(byteLength: number): readonly number[] {
  return [...paddingRests(byteLength), BLOCK_BYTES - CHECKSUM_BYTES];
}

function paddedBytes(byteLength: number): number {
  return Math.ceil(byteLength / BLOCK_BYTES) * BLOCK_BYTES;
}

function paddingOf(byteLength: number): Uint8Array<ArrayBuffer> {
  return padding.subarray(0, paddedBytes(byteLength) - byteLength);
}

function newChecksum(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const checksum = new Uint8Array(CHECKSUM_BYTES);
  checksum.set(MAGIC);
  new DataView(checksum.buffer).setUint32(4, checksumOf(parts), true);
  return checksum;
}

function followedBy(object: AdapterObject, bytes: Uint8Array<ArrayBuffer>): AdapterObject {
  const { key, parts, byteLength } = object;
  return { key, parts: [...parts, bytes], byteLength: byteLength + bytes.byteLength };
}

function checksumOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((checksum, part) => crc32(part, checksum), 0);
}
