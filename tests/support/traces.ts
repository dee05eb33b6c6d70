import { randomChains } from "./chains.ts";
import { seededRandom } from "./random.ts";

/** Writes `small.jsonl`, a trace of 60 requests of conversations; returns its path. */
export async function writeTrace(directory: string): Promise<string> {
  const shape = { requests: 60, conversations: 6, turnBlocks: 3 };
  const lines = randomChains(seededRandom(7), shape).map((blocks, i) =>
    JSON.stringify({
      timestamp: 100 * i,
      input_length: 512 * blocks.length,
      output_length: 9,
      hash_ids: blocks,
    })
  );
  const path = `${directory}/small.jsonl`;
  await Deno.writeTextFile(path, lines.join("\n"));
  return path;
}
