import { Bitmap } from "../keys/bitmap.ts";
import type {
  AdapterCapabilities,
  AdapterUsage,
  DeleteResult,
  ListedObject,
  StoreResult,
} from "./adapter.ts";

/**
 * The bits of an answer, or `undefined` if it has not one bit an item. They are copied: the adapter
 * may keep what it returned. It is checked by shape: the adapter may have been built against
 * another copy of this package.
 */
export function copyBits(value: unknown, length: number): Bitmap | undefined {
  const isAnswer = typeof value === "object" && value !== null && "length" in value &&
    value.length === length && "test" in value && typeof value.test === "function";
  if (!isAnswer) return undefined;
  const bits = new Bitmap(length);
  for (let i = 0; i < length; i++) {
    if ((value as Bitmap).test(i)) bits.set(i);
  }
  return bits;
}

/** The answer to a `store` of `length` objects, or `undefined` if it is none. */
export function copyStoreResult(value: unknown, length: number): StoreResult | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { stored, bytes, sizes } = value as Partial<StoreResult>;
  const bits = copyBits(stored, length);
  if (bits === undefined || !isCount(bytes)) return undefined;
  if (sizes === undefined) return { stored: bits, bytes };
  const isComplete = Array.isArray(sizes) && sizes.length === length && sizes.every(isCount);
  return isComplete ? { stored: bits, bytes, sizes: [...sizes] } : undefined;
}

/** The answer to a `delete` of `length` keys, or `undefined` if it is none. */
export function copyDeleteResult(value: unknown, length: number): DeleteResult | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { deleted, bytes } = value as Partial<DeleteResult>;
  const bits = copyBits(deleted, length);
  return bits === undefined || !isCount(bytes) ? undefined : { deleted: bits, bytes };
}

/** The answer to `usage`, or `undefined` if it is none. */
export function copyUsage(value: unknown): AdapterUsage | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { usedBytes, objectCount, capacityBytes } = value as Partial<AdapterUsage>;
  if (!isCount(usedBytes) || !isCount(objectCount)) return undefined;
  if (capacityBytes === undefined) return { usedBytes, objectCount };
  return isCount(capacityBytes) ? { usedBytes, objectCount, capacityBytes } : undefined;
}

/** Whether an adapter supports `allowShorter`; also reads the name that 0.1 used. */
export function acceptsShortObjects(
  { acceptsShortObjects, loadsShorter }: AdapterCapabilities,
): boolean {
  return acceptsShortObjects ?? loadsShorter ?? false;
}

/** Whether a listing hides the lengths that `load` needs; also reads the name that 0.1 used. */
export function hasVariableLength({ variableLength, hidesLengths }: AdapterCapabilities): boolean {
  return variableLength ?? hidesLengths ?? false;
}

/** Whether an adapter listed an object. */
export function isListedObject(value: unknown): value is ListedObject {
  if (typeof value !== "object" || value === null) return false;
  const { key, byteLength } = value as Partial<ListedObject>;
  return typeof key?.id === "string" && isCount(byteLength);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}
