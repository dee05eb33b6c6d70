/**
 * Writes ONNX files: the messages of `onnx.proto3` that a decoder needs, in protocol buffer
 * wire format.
 */

/** Element types with their numbers in `TensorProto.DataType`. */
export const ELEMENT_TYPES = { f32: 1, i32: 6, i64: 7, f16: 10 } as const;

/** Name of an element type. */
export type ElementType = keyof typeof ELEMENT_TYPES;

/** A constant of a graph. */
export interface Constant {
  readonly name: string;
  readonly type: ElementType;
  readonly dims: readonly number[];
  /** Little-endian elements. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** An input or output of a graph. A string names a dimension that is not fixed. */
export interface Value {
  readonly name: string;
  readonly type: ElementType;
  readonly dims: readonly (number | string)[];
}

/** An operation. */
export interface OnnxNode {
  readonly type: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

/** An integer, an array of integers, or a float. */
export type Attribute = number | readonly number[] | { readonly float: number };

/** A graph. */
export interface OnnxGraph {
  readonly nodes: readonly OnnxNode[];
  readonly constants: readonly Constant[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** A model and, if its weights are in a separate file, the contents of that file. */
export interface OnnxFile {
  readonly model: Uint8Array<ArrayBuffer>;
  readonly external?: Uint8Array<ArrayBuffer>;
}

/**
 * Encodes a model file.
 *
 * @param externalName Name of a separate file for the weights. @default {weights in the model}
 */
export function encodeModel(graph: OnnxGraph, externalName?: string): OnnxFile {
  const external: Uint8Array[] = [];
  let externalBytes = 0;
  const encodeConstant = ({ name, type, dims, bytes }: Constant): Uint8Array => {
    const head = [...dims.map((dim) => varint(1, dim)), varint(2, ELEMENT_TYPES[type])];
    // Constants from which shapes are computed must be in the model.
    const isWeight = type === "f32" || type === "f16";
    if (externalName === undefined || !isWeight) {
      return join([...head, text(8, name), blob(9, bytes)]);
    }
    const entry = (key: string, value: string | number): Uint8Array =>
      blob(13, join([text(1, key), text(2, String(value))]));
    const place = [
      entry("location", externalName),
      entry("offset", externalBytes),
      entry("length", bytes.byteLength),
    ];
    external.push(bytes);
    externalBytes += bytes.byteLength;
    return join([...head, text(8, name), ...place, varint(14, 1)]);
  };
  const body = join([
    ...graph.nodes.map((node) => blob(1, encodeNode(node))),
    text(2, "decoder"),
    ...graph.constants.map((constant) => blob(5, encodeConstant(constant))),
    ...graph.inputs.map((value) => blob(11, encodeValue(value))),
    ...graph.outputs.map((value) => blob(12, encodeValue(value))),
  ]);
  const model = join([
    varint(1, 10),
    blob(7, body),
    blob(8, join([text(1, ""), varint(2, 18)])),
    blob(8, join([text(1, "com.microsoft"), varint(2, 1)])),
  ]);
  return externalName === undefined ? { model } : { model, external: join(external) };
}

function encodeNode({ type, inputs, outputs, domain = "", attributes = {} }: OnnxNode): Uint8Array {
  return join([
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(3, outputs[0] ?? type),
    text(4, type),
    ...Object.entries(attributes).map(([name, value]) => blob(5, encodeAttribute(name, value))),
    text(7, domain),
  ]);
}

function encodeAttribute(name: string, value: Attribute): Uint8Array {
  if (typeof value === "number") return join([text(1, name), varint(3, value), varint(20, 2)]);
  if ("float" in value) {
    const bytes = new Uint8Array(Float32Array.of(value.float).buffer);
    return join([text(1, name), Uint8Array.of(2 << 3 | 5), bytes, varint(20, 1)]);
  }
  return join([text(1, name), ...value.map((item) => varint(8, item)), varint(20, 7)]);
}

function encodeValue({ name, type, dims }: Value): Uint8Array {
  const shape = join(
    dims.map((dim) => blob(1, typeof dim === "number" ? varint(1, dim) : text(2, dim))),
  );
  const tensor = join([varint(1, ELEMENT_TYPES[type]), blob(2, shape)]);
  return join([text(1, name), blob(2, blob(1, tensor))]);
}

function varint(field: number, value: number): Uint8Array {
  return Uint8Array.from([...digits(field << 3), ...digits(value)]);
}

function text(field: number, value: string): Uint8Array {
  return blob(field, new TextEncoder().encode(value));
}

function blob(field: number, bytes: Uint8Array): Uint8Array {
  return join([Uint8Array.from([...digits(field << 3 | 2), ...digits(bytes.byteLength)]), bytes]);
}

/** Encodes a varint; negative numbers as 64 bits. */
function digits(value: number): number[] {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) out.push(Number(rest & 0x7fn) | 0x80);
  out.push(Number(rest));
  return out;
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}
