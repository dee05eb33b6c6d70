import { assertEquals, assertThrows } from "@std/assert";
import {
  type DecoderSignature,
  type ModelConfig,
  readSignature,
  UnsupportedModelError,
} from "../../../../src/engine/onnx/decoder_signature.ts";
import type { OrtValueMetadata } from "../../../../src/engine/onnx/ort.ts";

type Shape = (number | string)[];

function value(name: string, shape: Shape, type = "float32"): OrtValueMetadata {
  return { name, isTensor: true, type, shape };
}

/** Inputs and outputs of a decoder with two layers, with changes. */
function signatureOf(
  changes: {
    inputs?: OrtValueMetadata[];
    outputs?: OrtValueMetadata[];
    without?: string;
    kv?: Shape;
    type?: string;
    logits?: Shape;
  } = {},
  config?: ModelConfig,
): DecoderSignature {
  const { kv = ["b", 2, "t", 16], type, logits = ["b", "s", 64], without } = changes;
  const parts = [0, 1].flatMap((layer) => [`${layer}.key`, `${layer}.value`]);
  const inputMetadata = [
    value("input_ids", ["b", "s"], "int64"),
    value("attention_mask", ["b", "t"], "int64"),
    ...parts.map((part) => value(`past_key_values.${part}`, kv, type)),
    ...(changes.inputs ?? []),
  ];
  const outputMetadata = [
    value("logits", logits),
    ...parts.map((part) => value(`present.${part}`, kv, type)),
    ...(changes.outputs ?? []),
  ];
  const isKept = ({ name }: OrtValueMetadata): boolean => name !== without;
  const session = {
    inputMetadata: inputMetadata.filter(isKept),
    outputMetadata: outputMetadata.filter(isKept),
  };
  return readSignature(session, config);
}

function assertRefused(message: string, ...args: Parameters<typeof signatureOf>): void {
  assertThrows(() => signatureOf(...args), UnsupportedModelError, message);
}

Deno.test("readSignature() finds layers, heads, dimensions and names", () => {
  const signature = signatureOf();
  const { layers, kvHeads, headDim, vocabulary, dtype } = signature;
  assertEquals({ layers, kvHeads, headDim, vocabulary, dtype }, {
    layers: 2,
    kvHeads: 2,
    headDim: 16,
    vocabulary: 64,
    dtype: "f32",
  });
  assertEquals(signature.kv[1]?.value, {
    past: "past_key_values.1.value",
    present: "present.1.value",
  });
  assertEquals([...signature.inputs], ["input_ids", "attention_mask"]);
});

Deno.test("readSignature() takes from the config what the model leaves open", () => {
  const open = { kv: ["b", "h", "t", "d"], logits: ["b", "s", "v"] };
  const config = { "num_attention_heads": 8, "hidden_size": 512, "vocab_size": 100 };
  const { kvHeads, headDim, vocabulary } = signatureOf(open, config);
  assertEquals([kvHeads, headDim, vocabulary], [8, 64, 100]);
  assertEquals(
    signatureOf(open, { ...config, "num_key_value_heads": 2, "head_dim": 32 }).kvHeads,
    2,
  );
  assertEquals(signatureOf(open, { "text_config": config }).kvHeads, 8);
  assertRefused("pass its config.json", open);
  for (const wrong of ["8", 0, -1, 1.5, {}]) {
    assertRefused("num_attention_heads of config", open, {
      ...config,
      "num_attention_heads": wrong,
    });
  }
  assertRefused("pass its config.json", open, { ...config, "num_attention_heads": 7 });
});

Deno.test("readSignature() refuses what a prefix of K and V does not describe", () => {
  assertRefused("received past_conv.0", { inputs: [value("past_conv.0", ["b", 64, 3])] });
  assertRefused("received past_key_values.2.value", {
    inputs: [value("past_key_values.2.value", ["b", 2, "t", 16])],
  });
  assertRefused("an output named present.1.key", { without: "present.1.key" });
  assertRefused("an input named past_key_values.1.value", { without: "past_key_values.1.value" });
  assertRefused("an output named logits", { without: "logits" });
  assertRefused("received uint8", { type: "uint8" });
  assertRefused("received [b, t, 32]", { kv: ["b", "t", 32] });
  assertRefused("received a fixed number of 4096 tokens as past_key_values.0.key", {
    kv: ["b", 2, 4096, 16],
  });
  assertThrows(
    () => readSignature({ inputMetadata: [value("input_ids", ["b", "s"])], outputMetadata: [] }),
    UnsupportedModelError,
    "text-generation-with-past",
  );
});

Deno.test("readSignature() refuses layers that differ", () => {
  const pair = (layer: number, shape: Shape): OrtValueMetadata[][] =>
    ["past_key_values", "present"].map((name) =>
      ["key", "value"].map((part) => value(`${name}.${layer}.${part}`, shape))
    );
  const [inputs = [], outputs = []] = pair(2, ["b", 4, "t", 16]);
  assertRefused("received 2, 4", { inputs, outputs });
});
