import { join } from "@std/path";
import { tinyConfig, tinyDecoder } from "./tiny_decoder.ts";

/** Writes a tiny decoder in the layout of models for transformers.js, without a tokenizer. */
export async function writeTinyModel(directory: string): Promise<void> {
  await Deno.mkdir(join(directory, "onnx"), { recursive: true });
  const options = { positions: 1024 };
  const config = tinyConfig(options, { begin: 0, end: 63 });
  await Deno.writeFile(join(directory, "onnx", "model.onnx"), tinyDecoder(options).model);
  await Deno.writeTextFile(join(directory, "config.json"), JSON.stringify(config));
  await Deno.writeTextFile(join(directory, "generation_config.json"), "{}");
}
