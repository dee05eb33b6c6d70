import { join } from "@std/path";
import { HEAD_DIM, tinyDecoder } from "./tiny_decoder.ts";

/** Writes a tiny decoder in the layout of models for transformers.js, without a tokenizer. */
export async function writeTinyModel(directory: string): Promise<void> {
  await Deno.mkdir(join(directory, "onnx"), { recursive: true });
  const { model } = tinyDecoder({ positions: 1024 });
  await Deno.writeFile(join(directory, "onnx", "model.onnx"), model);
  const config = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": HEAD_DIM,
    "hidden_size": 64,
    "vocab_size": 64,
    "max_position_embeddings": 1024,
    "eos_token_id": 63,
    "bos_token_id": 0,
  };
  await Deno.writeTextFile(join(directory, "config.json"), JSON.stringify(config));
  await Deno.writeTextFile(join(directory, "generation_config.json"), "{}");
}
