import { bytesWithTrailer, TRAILER_BYTES } from "./adapter/object_trailer.ts";
import { typeInWords } from "./base/options.ts";
import type { ObjectLayout } from "./keys/kv_layout.ts";
import type { ObjectKey } from "./keys/object_key.ts";
import type { L1Cache } from "./l1/l1_cache.ts";
import type { MemoryDevice } from "./memory/memory_device.ts";
import { countThatFit, type StagingPool } from "./memory/staging_pool.ts";
import type { KeyGroup } from "./prefetch/key_group.ts";

const FINGERPRINT_BYTES = 8;

/** Checks that the objects of a call can be written, stored and loaded. */
export class ObjectChecks {
  readonly #l1: L1Cache;
  readonly #scratch: StagingPool<Uint8Array>;
  /** Layouts that fit the current device. */
  #knownLayouts = new WeakSet<ObjectLayout>();
  #device: MemoryDevice | undefined;

  /** Checks against the limits of L1, its device, and the host memory for loads. */
  constructor(l1: L1Cache, scratch: StagingPool<Uint8Array>) {
    this.#l1 = l1;
    this.#scratch = scratch;
  }

  /**
   * Checks the groups of a match.
   *
   * @throws {TypeError} If a value has the wrong type.
   * @throws {RangeError} If there is no group, groups differ in length, a window is smaller than 1,
   * or objects cannot be stored.
   */
  checkGroups(groups: readonly KeyGroup[]): void {
    checkList("groups of keys", groups);
    for (const group of groups) checkKeys("a group", group?.keys);
    const length = groups[0]?.keys.length;
    if (length === undefined) throw new RangeError("At least one group is required: received none");
    for (const { keys, layout, windowChunks } of groups) {
      this.checkObjects(keys, layout);
      if (keys.length !== length) {
        throw new RangeError(
          `All groups must have the same number of keys: received ${length} and ${keys.length}`,
        );
      }
      if (windowChunks !== undefined && !(windowChunks >= 1)) {
        throw new RangeError(`windowChunks must be at least 1: received ${windowChunks}`);
      }
    }
  }

  /**
   * Checks that objects of a layout can be stored under these keys.
   *
   * @throws {TypeError} If the layout is not an object.
   * @throws {RangeError} If the objects are empty, misaligned or larger than the cache can move.
   */
  checkObjects(keys: readonly ObjectKey[], layout: ObjectLayout): void {
    const { device } = this.#l1;
    if (device !== this.#device) this.#knownLayouts = new WeakSet();
    this.#device = device;
    if (typeof layout !== "object" || layout === null) {
      throw new TypeError(
        `layout must be an object, as kvLayout() returns it: received ${typeInWords(layout)}`,
      );
    }
    if (!this.#knownLayouts.has(layout)) {
      checkLayout(layout, this.#l1.maxObjectBytes);
      this.#knownLayouts.add(layout);
    }
    let size = layout.byteLength + TRAILER_BYTES;
    for (const key of keys) size = Math.max(size, bytesWithTrailer(key, layout));
    const { blockBytes, capacityBytes } = this.#scratch;
    if (countThatFit([size], blockBytes, capacityBytes) === 0) {
      throw new RangeError(
        `Object of ${size} bytes must fit into prefetch.maxInFlightBytes of ${capacityBytes}: raise it`,
      );
    }
    if (device.countReadable([size]) === 0) {
      throw new RangeError(
        `Object of ${size} bytes must fit into store.maxInFlightBytes: raise it`,
      );
    }
  }
}

/**
 * Checks that the keys of a call are an array.
 *
 * @throws {TypeError} If they are not.
 */
export function checkKeys(call: string, keys: readonly ObjectKey[] | undefined): void {
  checkList(`keys of ${call}${call.includes(" ") ? "" : "()"}`, keys);
}

function checkList(what: string, list: readonly unknown[] | undefined): void {
  if (Array.isArray(list)) return;
  throw new TypeError(`${what} must be an array: received ${typeInWords(list)}`);
}

function checkLayout({ byteLength, fingerprint }: ObjectLayout, maxBytes: number): void {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0 || byteLength % 4 !== 0) {
    throw new RangeError(`Object must be a positive multiple of 4 bytes: received ${byteLength}`);
  }
  if (byteLength > maxBytes) {
    throw new RangeError(
      `Object must fit into device memory of ${maxBytes} bytes: received ${byteLength}`,
    );
  }
  if (fingerprint.byteLength !== FINGERPRINT_BYTES) {
    throw new RangeError(
      `Layout fingerprint must have ${FINGERPRINT_BYTES} bytes: received ${fingerprint.byteLength}`,
    );
  }
}
