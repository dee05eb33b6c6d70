import { assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import { runChild } from "../support/child.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { HEAD_DIM, tinyDecoder } from "./support/tiny_decoder.ts";

const program = new URL("./support/transformers_program.ts", import.meta.url);

interface Answer {
  readonly reused: number;
  readonly storedTokens: number;
  readonly tokens: readonly number[];
}

async function writeModel(directory: string): Promise<void> {
  const path = join(directory, "models", "tiny", "onnx", "model.onnx");
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeFile(path, tinyDecoder().model);
  const config = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": HEAD_DIM,
    "hidden_size": 64,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "eos_token_id": 63,
    "bos_token_id": 0,
  };
  const tiny = join(directory, "models", "tiny");
  await Deno.writeTextFile(join(tiny, "config.json"), JSON.stringify(config));
  await Deno.writeTextFile(join(tiny, "generation_config.json"), JSON.stringify({}));
}

async function generate(directory: string, provider: string): Promise<Answer> {
  return await runChild(program, { args: [directory, provider] }) as Answer;
}

for (const provider of ["wasm", "webgpu"]) {
  Deno.test(`transformers.js on ${provider} goes on where another process has stopped`, async () => {
    await using directory = await tempDirectory();
    await writeModel(directory.path);
    const cold = await generate(directory.path, provider);
    assertEquals([cold.reused, cold.storedTokens, cold.tokens.length], [0, 64, 76]);
    const warm = await generate(directory.path, provider);
    assertEquals([warm.reused, warm.storedTokens], [64, 0]);
    assertEquals(warm.tokens, cold.tokens);
  });
}
