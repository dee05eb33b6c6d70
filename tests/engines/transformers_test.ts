import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { runChild } from "../support/child.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { writeTinyModel } from "../../docs/examples/chat/tiny_model/model_directory.ts";

const program = new URL("./support/transformers_program.ts", import.meta.url);

interface Answer {
  readonly reused: number;
  readonly storedTokens: number;
  readonly tokens: readonly number[];
  readonly refused: string;
}

async function generate(directory: string, provider: string): Promise<Answer> {
  return await runChild(program, { args: [directory, provider] }) as Answer;
}

for (const provider of ["wasm", "webgpu"]) {
  Deno.test(`transformers.js on ${provider} goes on where another process has stopped`, async () => {
    await using directory = await tempDirectory();
    await writeTinyModel(join(directory.path, "models", "tiny"));
    const cold = await generate(directory.path, provider);
    assertEquals([cold.reused, cold.storedTokens, cold.tokens.length], [0, 64, 76]);
    const warm = await generate(directory.path, provider);
    assertEquals([warm.reused, warm.storedTokens], [64, 0]);
    assertEquals(warm.tokens, cold.tokens);
    assertMatch(warm.refused, /^RangeError: .* one sequence must be float32 \[1,2,64,/);
  });
}
