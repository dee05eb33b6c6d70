import { Bitmap } from "../keys/bitmap.ts";
import type {
  AdapterCapabilities,
  AdapterUsage,
  DeleteResult,
  ListedObject,
  StoreResult,
  SweepResult,
} from "../adapter/contract.ts";

/**
 * Copies the bits of an answer, since the adapter may keep the object it returned. Checked by
 * shape, because the adapter may have been built against another copy of this package.
 *
 * @param method Name of the method that answered, for the message.
 * @throws {TypeError} If the answer does not have one bit for each item.
 */
export function copyBits(method: string, value: unknown, length: number): Bitmap {
  return bitsIn(value, length) ?? refuse(`${method} must resolve to a Bitmap of ${length} bits`);
}

/**
 * Copies the answer to a `store` of `length` objects.
 *
 * @throws {TypeError} If it is not valid.
 */
export function copyStoreResult(value: unknown, length: number): StoreResult {
  const { stored, bytes, sizes } = fieldsOf<StoreResult>(value);
  const bits = bitsIn(stored, length);
  const areSizesValid = sizes === undefined ||
    (Array.isArray(sizes) && sizes.length === length && sizes.every(isCount));
  if (bits === undefined || !isCount(bytes) || !areSizesValid) {
    return refuse("store() must resolve to { stored, bytes } with one bit for each object");
  }
  return { stored: bits, bytes, ...(sizes === undefined ? {} : { sizes: [...sizes] }) };
}

/**
 * Copies the answer to a `delete` of `length` keys.
 *
 * @throws {TypeError} If it is not valid.
 */
export function copyDeleteResult(value: unknown, length: number): DeleteResult {
  const { deleted, bytes } = fieldsOf<DeleteResult>(value);
  const bits = bitsIn(deleted, length);
  if (bits !== undefined && isCount(bytes)) return { deleted: bits, bytes };
  return refuse("delete() must resolve to { deleted, bytes } with one bit for each key");
}

/**
 * Copies the answer to `usage`.
 *
 * @throws {TypeError} If it is not valid.
 */
export function copyUsage(value: unknown): AdapterUsage {
  const { usedBytes, objectCount, capacityBytes } = fieldsOf<AdapterUsage>(value);
  const isValid = isCount(usedBytes) && isCount(objectCount) &&
    (capacityBytes === undefined || isCount(capacityBytes));
  if (!isValid) return refuse("usage() must resolve to { usedBytes, objectCount }");
  return { usedBytes, objectCount, ...(capacityBytes === undefined ? {} : { capacityBytes }) };
}

/**
 * Copies the answer to `sweep`.
 *
 * @throws {TypeError} If it is not valid.
 */
export function copySweepResult(value: unknown): SweepResult {
  const { files, bytes } = fieldsOf<SweepResult>(value);
  if (isCount(files) && isCount(bytes)) return { files, bytes };
  return refuse("sweep() must resolve to { files, bytes }");
}

/**
 * Returns a value that `list` yielded.
 *
 * @throws {TypeError} If it is no listed object.
 */
export function checkListed(value: unknown): ListedObject {
  const { key, byteLength } = fieldsOf<ListedObject>(value);
  if (typeof key?.id === "string" && isCount(byteLength)) return value as ListedObject;
  return refuse("list() must yield { key, byteLength }");
}

/** Problems that an adapter names in its own status. */
export function problemsIn({ problems }: Readonly<Record<string, unknown>>): string[] {
  return Array.isArray(problems) ? problems.filter((text) => typeof text === "string") : [];
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

function bitsIn(value: unknown, length: number): Bitmap | undefined {
  const isAnswer = typeof value === "object" && value !== null && "length" in value &&
    value.length === length && "test" in value && typeof value.test === "function";
  if (!isAnswer) return undefined;
  const bits = new Bitmap(length);
  for (let i = 0; i < length; i++) {
    if ((value as Bitmap).test(i)) bits.set(i);
  }
  return bits;
}

function fieldsOf<T>(value: unknown): Partial<T> {
  return typeof value === "object" && value !== null ? value : {};
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function refuse(message: string): never {
  throw new TypeError(message);
}
