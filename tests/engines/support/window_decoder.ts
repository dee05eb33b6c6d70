import { type Constant, encodeModel } from "../../../docs/examples/chat/tiny_model/onnx_file.ts";

const [VOCABULARY, HEAD_DIM] = [64, 4];

/** A model of one layer whose K and V are those of the last `window` tokens only. */
export function windowDecoder(window: number): Uint8Array<ArrayBuffer> {
  const past = ["batch_size", 1, "past_sequence_length", HEAD_DIM];
  const present = ["batch_size", 1, "present_sequence_length", HEAD_DIM];
  const parts = ["key", "value"] as const;
  return encodeModel({
    constants: [
      table("states", HEAD_DIM),
      table("scores", VOCABULARY),
      integer("heads", 1),
      integer("start", -window),
      integer("end", 2 ** 31),
      integer("tokens", 2),
    ],
    inputs: [
      { name: "input_ids", type: "i64", dims: ["batch_size", "sequence_length"] },
      ...parts.map((part) => (
        { name: `past_key_values.0.${part}`, type: "f32" as const, dims: past }
      )),
    ],
    outputs: [
      { name: "logits", type: "f32", dims: ["batch_size", "sequence_length", VOCABULARY] },
      ...parts.map((part) => ({ name: `present.0.${part}`, type: "f32" as const, dims: present })),
    ],
    nodes: [
      { type: "Gather", inputs: ["scores", "input_ids"], outputs: ["logits"] },
      { type: "Gather", inputs: ["states", "input_ids"], outputs: ["rows"] },
      { type: "Unsqueeze", inputs: ["rows", "heads"], outputs: ["new"] },
      ...parts.flatMap((part) => [
        {
          type: "Concat",
          inputs: [`past_key_values.0.${part}`, "new"],
          outputs: [`all.${part}`],
          attributes: { axis: 2 },
        },
        {
          type: "Slice",
          inputs: [`all.${part}`, "start", "end", "tokens"],
          outputs: [`present.0.${part}`],
        },
      ]),
    ],
  }).model;
}

function table(name: string, columns: number): Constant {
  const values = Float32Array.from({ length: VOCABULARY * columns }, (_, i) => i % 7);
  return { name, type: "f32", dims: [VOCABULARY, columns], bytes: new Uint8Array(values.buffer) };
}

function integer(name: string, value: number): Constant {
  const bytes = new Uint8Array(BigInt64Array.of(BigInt(value)).buffer);
  return { name, type: "i64", dims: [1], bytes };
}
