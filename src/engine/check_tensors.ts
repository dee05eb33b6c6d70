import { bufferBytes, type DeviceBuffer } from "../memory/memory_device.ts";
import { checkNotNullish, checkNumber, checkOptionKeys, typeInWords } from "../base/options.ts";

const KV = "KV must be an array of layers, { key, value } each, or { layers, blockTokens, … }";
const TENSOR = "a GPUBuffer, a Uint8Array, or { buffer, byteOffset, byteLength }";
const BLOCK_KEYS = ["layers", "blockTokens", "blockTable", "blockStrideBytes"];
/** Their defaults describe a single contiguous block; they must not be `undefined` or `null`. */
const DEFAULTED_KEYS = ["blockTable", "blockStrideBytes"];

/**
 * Checks the types of layers of tensors, or of blocks. Does not check that the tensors are large
 * enough.
 *
 * @throws {TypeError} If a value has the wrong type; the message says where.
 * @throws {RangeError} If a tensor does not lie within its buffer.
 */
export function checkKvTypes(kv: unknown): void {
  if (Array.isArray(kv)) return checkLayers(kv);
  if (typeof kv !== "object" || kv === null || !("layers" in kv)) {
    throw new TypeError(`${KV}: received ${typeInWords(kv)}`);
  }
  checkOptionKeys("KV blocks", kv, BLOCK_KEYS);
  checkNotNullish("KV blocks", kv, DEFAULTED_KEYS);
  const { layers, blockTable }: { layers: unknown; blockTable?: unknown } = kv;
  if (!Array.isArray(layers)) {
    throw new TypeError(
      `layers must be an array of { key, value }: received ${typeInWords(layers)}`,
    );
  }
  checkLayers(layers);
  if (blockTable !== undefined && typeof Reflect.get(Object(blockTable), "length") !== "number") {
    throw new TypeError(
      `blockTable must be an array of integers: received ${typeInWords(blockTable)}`,
    );
  }
}

function checkLayers(layers: readonly unknown[]): void {
  for (const [i, layer] of layers.entries()) {
    if (typeof layer !== "object" || layer === null || !("key" in layer && "value" in layer)) {
      throw new TypeError(
        `Layer ${i} of KV must be { key, value }: received ${typeInWords(layer)}`,
      );
    }
    checkTensor(`key of layer ${i}`, layer.key);
    checkTensor(`value of layer ${i}`, layer.value);
  }
}

function checkTensor(what: string, tensor: unknown): void {
  if (isBuffer(tensor)) return;
  if (ArrayBuffer.isView(tensor)) {
    throw new TypeError(
      `${what} must be ${TENSOR}: received ${typeInWords(tensor)}, give its bytes as ` +
        "new Uint8Array(it.buffer, it.byteOffset, it.byteLength)",
    );
  }
  if (typeof tensor !== "object" || tensor === null || !("buffer" in tensor)) {
    throw new TypeError(`${what} must be ${TENSOR}: received ${typeInWords(tensor)}`);
  }
  const { buffer, byteOffset, byteLength } = tensor as Readonly<Record<string, unknown>>;
  if (!isBuffer(buffer)) {
    throw new TypeError(
      `buffer of ${what} must be a GPUBuffer or a Uint8Array: received ${typeInWords(buffer)}`,
    );
  }
  const maximum = bufferBytes(buffer);
  checkNumber(`byteOffset of ${what}`, byteOffset, { minimum: 0, maximum, multipleOf: 4 });
  const rest = maximum - byteOffset;
  checkNumber(`byteLength of ${what}`, byteLength, { minimum: 0, maximum: rest, multipleOf: 1 });
}

function isBuffer(value: unknown): value is DeviceBuffer {
  if (value instanceof Uint8Array) return true;
  return typeof value === "object" && value !== null && "size" in value &&
    typeof value.size === "number";
}
