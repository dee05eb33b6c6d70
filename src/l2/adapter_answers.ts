import { Bitmap } from "../keys/bitmap.ts";
import type {
  AdapterCapabilities,
  AdapterUsage,
  DeleteResult,
  ListedObject,
  StoreResult,
} from "../adapter/contract.ts";

/**
 * Copies the bits of an answer, since the adapter may keep the object it returned; `undefined` if
 * it does not have one bit for each item. Checked by shape, because the adapter may have been built
 * against another copy of this package.
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

/** Copies the answer to a `store` of `length` objects; `undefined` if it is not valid. */
export function copyStoreResult(value: unknown, length: number): StoreResult | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { stored, bytes, sizes } = value as Partial<StoreResult>;
  const bits = copyBits(stored, length);
  if (bits === undefined || !isCount(bytes)) return undefined;
  if (sizes === undefined) return { stored: bits, bytes };
  const isComplete = Array.isArray(sizes) && sizes.length === length && sizes.every(isCount);
  return isComplete ? { stored: bits, bytes, sizes: [...sizes] } : undefined;
}

/** Copies the answer to a `delete` of `length` keys; `undefined` if it is not valid. */
export function copyDeleteResult(value: unknown, length: number): DeleteResult | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { deleted, bytes } = value as Partial<DeleteResult>;
  const bits = copyBits(deleted, length);
  return bits === undefined || !isCount(bytes) ? undefined : { deleted: bits, bytes };
}

/** Copies the answer to `usage`; `undefined` if it is not valid. */
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

/** Whether a value yielded by `list` is a listed object. */
export function isListedObject(value: unknown): value is ListedObject {
  if (typeof value !== "object" || value === null) return false;
  const { key, byteLength } = value as Partial<ListedObject>;
  return typeof key?.id === "string" && isCount(byteLength);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}
